"""Errors of the tenants package."""


class TenantError(Exception):
    """Unknown tenant, a folder that is no export, an export that does not verify. The message names the remedy. Never retry."""
