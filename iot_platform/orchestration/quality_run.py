"""One evaluation of the quality rules as Dagster shows it: the asset's metadata, and a check result per rule."""

from collections.abc import Iterator
from contextlib import closing
from urllib.parse import quote

import dagster as dg

from iot_platform.database import connect
from iot_platform.orchestration.partition_keys import tenant_key
from iot_platform.quality import RULES, BusyError, Evaluation, evaluate
from iot_platform.quality.report import SHOWN, Incident, RuleState, read_incidents, read_states
from iot_platform.settings import Settings

ASSET = "quality_result"
_SEVERITY = {"WARN": dg.AssetCheckSeverity.WARN, "ERROR": dg.AssetCheckSeverity.ERROR}


def check_specs() -> list[dg.AssetCheckSpec]:
    """One check per rule, never one per project."""
    return [
        dg.AssetCheckSpec(rule, asset=ASSET, description=f"No open incident of the rule {rule} (sql/quality/{rule}.sql).") for rule in RULES
    ]


def run_quality(context: dg.AssetExecutionContext, settings: Settings) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:  # type: ignore[type-arg]
    """Evaluate, then report: a materialization, and every rule's state. While another evaluation runs, only the states.

    Raises:
        DatabaseError: the database does not answer.
    """
    try:
        metadata = _metadata(evaluate(settings, note=context.log.debug))
    except BusyError as error:
        context.log.info("%s", error)
        metadata = {"skipped": str(error)}
    with closing(connect(settings, application_name="dagster-quality")) as connection:
        states = read_states(connection)
        examples = {rule: read_incidents(connection, rule=rule, most=SHOWN) for rule, state in states.items() if state.open}
    yield dg.MaterializeResult(asset_key=ASSET, metadata={**metadata, "open_incidents": sum(state.open for state in states.values())})
    for rule, state in states.items():
        yield check_result(state, examples.get(rule, []), settings.dagster_url)


def check_result(state: RuleState, examples: list[Incident], url: str) -> dg.AssetCheckResult:
    """Fails while incidents of the rule are open, or the rule itself cannot be evaluated; with the worst severity among them."""
    metadata: dict[str, dg.MetadataValue | int | float | str] = {
        "open_incidents": state.open,
        "failing_tenants": state.tenants,
        "enabled": str(state.enabled),
        "seconds": round(state.seconds, 3),
    }
    if state.horizon is not None:
        metadata["judged_until"] = dg.MetadataValue.timestamp(state.horizon.timestamp())
    if state.by_tenant:
        rows = [
            dg.TableRecord({"tenant": tenant or "–", "incidents": count, "projects": projects, "link": _link(url, tenant)})
            for tenant, count, projects in state.by_tenant
        ]
        metadata["tenants"] = dg.MetadataValue.table(rows)
        metadata["examples"] = dg.MetadataValue.table([_example(item) for item in examples])
        metadata["all_of_them"] = dg.MetadataValue.text(f"iot quality --open --rule {state.rule}")
    description = state.error and f"The rule cannot be evaluated: {state.error}"
    if state.open:
        description = f"{state.open} open incident(s) in {state.tenants} tenant(s), first: {examples[0].message if examples else ''}"
    return dg.AssetCheckResult(
        asset_key=ASSET,
        check_name=state.rule,
        passed=not state.open and state.error is None,
        severity=dg.AssetCheckSeverity.ERROR if state.error else _SEVERITY[state.worst or state.severity],
        metadata=metadata,
        description=description or f"Nothing is open. Fails when: {state.description}",
    )


def _link(url: str, tenant: str) -> str:
    return f"{url}/assets/tenant?partition={quote(tenant_key(tenant), safe='')}" if tenant else ""


def _example(item: Incident) -> dg.TableRecord:
    record = f"iot trace --partition {item.kafka_partition} --offset {item.kafka_offset}" if item.kafka_offset is not None else ""
    return dg.TableRecord(
        {
            "tenant": item.tenant,
            "project": item.project,
            "device": item.device,
            "metric": item.metric,
            "what": item.message,
            "opened": f"{item.opened_at:%Y-%m-%d %H:%M:%S}",
            "record": record,
        }
    )


def _metadata(result: Evaluation) -> dict[str, dg.MetadataValue | int | float | str]:
    outcomes = result.outcomes.values()
    metadata: dict[str, dg.MetadataValue | int | float | str] = {
        "judged_until": dg.MetadataValue.timestamp(result.horizon.timestamp()),
        "new_batches": result.batches,
        "opened": sum(item.opened for item in outcomes),
        "closed": sum(item.closed for item in outcomes),
        "seconds": round(result.seconds, 3),
    }
    if not result.live:
        metadata["silence_not_judged"] = result.reason
    if not result.finished:
        metadata["unfinished"] = "time was up before the end of what is new; the next run goes on"
    return metadata
