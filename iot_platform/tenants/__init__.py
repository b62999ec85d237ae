"""The life of a tenant's data: what there is (listing), taking it out (export, verify), deleting it everywhere (deletion)."""

from iot_platform.tenants.deletion import Deletion, DeletionProgress, delete_tenant
from iot_platform.tenants.errors import TenantError
from iot_platform.tenants.listing import ProjectSummary, TenantSummary, projects, tenants

__all__ = ["Deletion", "DeletionProgress", "ProjectSummary", "TenantError", "TenantSummary", "delete_tenant", "projects", "tenants"]
