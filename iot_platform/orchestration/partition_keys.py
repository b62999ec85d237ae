"""Dagster partition keys of tenants and projects: readable names, and a way back."""

from urllib.parse import unquote

_ODD = frozenset("%/|,\"'[]{}<>\\`")
"""Characters with a meaning in keys, ranges or multi-partitions, beside everything unprintable."""


def _encode(name: str) -> str:
    if name.isalnum():  # nearly all are: quick
        return name
    text = "".join(_escape(char) if char in _ODD or char.isspace() or not char.isprintable() else char for char in name)
    return text.replace("...", "%2E%2E%2E")  # Dagster writes ranges as first...last


def _escape(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in char.encode("utf-8"))


def tenant_key(tenant: str) -> str:
    """Partition key of a tenant: its id, odd characters as %XX (UTF-8)."""
    return _encode(tenant)


def project_key(tenant: str, project: str) -> str:
    """Partition key of a project: tenant/project, odd characters of each as %XX."""
    return f"{_encode(tenant)}/{_encode(project)}"


def tenant_of_key(key: str) -> str:
    """The tenant id that tenant_key() encoded."""
    return unquote(key, errors="strict")


def project_of_key(key: str) -> tuple[str, str]:
    """(tenant, project) that project_key() encoded.

    Raises:
        ValueError: the key is no tenant/project.
    """
    tenant, slash, project = key.partition("/")
    if not slash or not tenant or not project or "/" in project:
        raise ValueError(f"{key!r} is no project: expected tenant/project")
    return unquote(tenant, errors="strict"), unquote(project, errors="strict")
