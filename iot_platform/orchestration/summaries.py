"""Bodies of the project and tenant assets: sums since the beginning, from accounting_1h."""

from contextlib import closing

import dagster as dg

from iot_platform.database import connect
from iot_platform.orchestration.materializations import figures_metadata
from iot_platform.orchestration.partition_keys import project_of_key, tenant_of_key
from iot_platform.orchestration.sourced_partitions import chosen_keys
from iot_platform.settings import Settings
from iot_platform.telemetry.sums import Figures, project_figures, tenant_figures


def add_project_metadata(context: dg.AssetExecutionContext, settings: Settings) -> None:
    """Put the all-time sums of each selected project on its materialization.

    Raises:
        DatabaseError: the database does not answer.
        dg.Failure: the run has no partition.
    """
    projects = {key: project_of_key(key) for key in chosen_keys(context, "projects")}
    with closing(connect(settings, application_name="dagster-project")) as connection:
        sums = project_figures(connection, list(projects.values()))
    for key, (tenant, project) in projects.items():
        metadata = {**figures_metadata(sums.get((tenant, project), Figures()), "total_"), "tenant": tenant, "project": project}
        context.add_asset_metadata(metadata, partition_key=key)


def add_tenant_metadata(context: dg.AssetExecutionContext, settings: Settings) -> None:
    """Put the all-time sums of each selected tenant on its materialization.

    Raises:
        DatabaseError: the database does not answer.
        dg.Failure: the run has no partition.
    """
    tenants = {key: tenant_of_key(key) for key in chosen_keys(context, "tenants")}
    with closing(connect(settings, application_name="dagster-tenant")) as connection:
        sums = tenant_figures(connection, list(tenants.values()))
    for key, tenant in tenants.items():
        projects, figures = sums.get(tenant, (0, Figures()))
        context.add_asset_metadata({**figures_metadata(figures, "total_"), "tenant": tenant, "projects": projects}, partition_key=key)
