"""`iot tenant`: everything about one tenant. The commands are in modules of their own."""

import typer

from iot_platform.cli import tenant_access, tenant_lifecycle

tenant_app = typer.Typer(
    name="tenant", help="What each tenant has, exporting and deleting it; logins that read one tenant only.", no_args_is_help=True
)
tenant_lifecycle.register(tenant_app)
tenant_access.register(tenant_app)


def register(app: typer.Typer) -> None:
    """Add `tenant` to the app."""
    app.add_typer(tenant_app)
