"""Whom a choice is for, as --tenant and --project say: everybody, a tenant, or one of its projects."""

from iot_platform.cli.errors import CliError


def whose(tenant: str | None, project: str | None, what: str) -> tuple[str, str]:
    """Tenant and project, "" for those that are not given. Raises CliError for an empty name: an unset variable of a script must not
    change what counts for everybody."""
    if tenant == "" or project == "":
        raise CliError(f"--tenant and --project need a name; without them the {what} is everybody's")
    return tenant or "", project or ""


def named(tenant: str, project: str) -> str:
    """The same in words, behind a noun."""
    return f"of project {tenant}/{project}" if project else f"of tenant {tenant}" if tenant else "of everybody"
