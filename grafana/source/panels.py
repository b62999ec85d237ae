"""Panels in the house form: each says what it shows, in which unit, what it means and what an empty one means."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import stat, statetimeline, table, timeseries
from grafana_foundation_sdk.models import common, dashboard

from grafana.source import alerts
from grafana.source.alerts import RED, YELLOW, Limit
from grafana.source.queries import PROMETHEUS, SOURCE, Ask, Format, PromQL, sent

Panel = timeseries.Panel | stat.Panel | table.Panel | statetimeline.Panel
T = TypeVar("T", stat.Panel, table.Panel)
P = TypeVar("P", timeseries.Panel, stat.Panel, table.Panel, statetimeline.Panel)

AS_IS: Final = "string"
"""The unit of what must be read as it is. Under any other Grafana parses text as a number: 0012 is shown as 12."""
EXACT: Final = "locale"
"""The unit of numbers that are not to be rounded or abbreviated (`short` shows 1013.25 as 1.01 K)."""
DIGITS: Final = 9
"""Decimals of an exact number; beyond them lies the noise of averages."""
LINKS: Final[dict[str, tuple[str, str]]] = {
    "tenant_id": (
        "Open the tenant",
        "/d/iot-project/tenant-project?var-tenant=${__data.fields.tenant_id:percentencode}&${__url_time_range}",
    ),
    "project_id": (
        "Open the project",
        "/d/iot-project/tenant-project?var-tenant=${__data.fields.tenant_id:percentencode}"
        "&var-project=${__data.fields.project_id:percentencode}&${__url_time_range}",
    ),
    "device_id": (
        "Open the device",
        "/d/iot-device/device?var-tenant=${__data.fields.tenant_id:percentencode}&var-project=${__data.fields.project_id:percentencode}"
        "&var-device=${__data.fields.device_id:percentencode}&${__url_time_range}",
    ),
}
"""Links by column. Without percentencode Grafana leaves & + # as they are, and the name ends there."""


@dataclass(frozen=True)
class Face:
    """What every panel must tell: title, Grafana's unit id, what it shows and how to read it, the text in place of no data; the alerts that
    watch the same, to whose runbooks it links."""

    title: str
    unit: str
    description: str
    nothing: str
    alerts: Sequence[str] = ()


@dataclass(frozen=True)
class Size:
    """Columns of 24, and rows of about 30 pixels."""

    width: int
    height: int


def lines(
    face: Face, ask: Ask, size: Size, *, least_interval: str = "", most_points: int = 0, limits: Sequence[Limit] = ()
) -> timeseries.Panel:
    """Values over time; SQL returns time, metric (name of the line), value, or time and one column for each line. `limits` are drawn."""
    legend = common_builders.VizLegendOptions().show_legend(True).display_mode(common.LegendDisplayMode.LIST)
    tooltip = common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING)
    panel = _common(timeseries.Panel(), face, ask, size, "time_series")
    panel = panel.legend(legend.placement(common.LegendPlacement.BOTTOM).calcs([])).tooltip(tooltip).line_width(1)
    panel = panel.show_points(common.VisibilityMode.AUTO).span_nulls(False)
    if least_interval:
        panel = panel.interval(least_interval)
    if limits:
        style = common_builders.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED)
        panel = panel.thresholds(_thresholds(limits)).thresholds_style(style)
    return panel.max_data_points(most_points) if most_points else panel


def bars(face: Face, ask: Ask, size: Size, *, least_interval: str = "") -> timeseries.Panel:
    """Counts over time, stacked."""
    panel = lines(face, ask, size, least_interval=least_interval, most_points=200)
    stacking = common_builders.StackingConfig().mode(common.StackingMode.NORMAL).group("A")
    return panel.draw_style(common.GraphDrawStyle.BARS).fill_opacity(70).stacking(stacking)


def figures(
    face: Face,
    ask: Ask,
    size: Size,
    units: Mapping[str, str] | None = None,
    *,
    warn: float | None = None,
    bad: float | None = None,
    limits: Sequence[Limit] = (),
) -> stat.Panel:
    """One big figure for each column of the one row that SQL returns, or each series; `units` by column. Yellow from `warn`, red from
    `bad`, or by the `limits` of alerts."""
    own = [Limit(value, color, below=False) for value, color in ((warn, YELLOW), (bad, RED)) if value is not None]
    panel = _common(stat.Panel(), face, ask, size, "table" if isinstance(ask, str) else "time_series", instant=True)
    panel = _with_units(panel, units)
    reduce = common_builders.ReduceDataOptions().calcs(["lastNotNull"]).values(False).fields("")
    return panel.reduce_options(reduce).thresholds(_thresholds([*own, *limits])).graph_mode(common.BigValueGraphMode.NONE)


def grid(
    face: Face, labels: Mapping[str, str], columns: Sequence[PromQL], size: Size, units: Mapping[str, str] | None = None
) -> table.Panel:
    """A table of Prometheus: a row for each combination of `labels` (label → title of its column), a column for each query, named by its
    legend. Each query has these labels and no others.

    Raises:
        ValueError: see rows().
    """
    panel = rows(face, columns, size, units)
    names = {f"Value #{letter}": column.legend for letter, column in zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", columns, strict=False)}
    if len(columns) == 1:
        names = {"Value": columns[0].legend}
    places = {name: place for place, name in enumerate([*labels, *names])}
    organize = {"excludeByName": {"Time": True}, "indexByName": places, "renameByName": {**labels, **names}}
    merge = dashboard.DataTransformerConfig(id_val="merge", options={})
    return panel.with_transformation(merge).with_transformation(dashboard.DataTransformerConfig(id_val="organize", options=organize))


def rows(face: Face, ask: Ask, size: Size, units: Mapping[str, str] | None = None) -> table.Panel:
    """A table; `units` by column, of numbers only. Ids of tenants, projects and devices link to their dashboards.

    Raises:
        ValueError: the face's unit would have Grafana parse text as numbers.
    """
    if face.unit != AS_IS:
        raise ValueError(f"the table {face.title!r} needs the unit {AS_IS!r}; others by column, for numbers")
    panel = (
        _common(table.Panel(), face, ask, size, "table", instant=True)
        .show_header(True)
        .cell_height(common.TableCellHeight.SM)
        .filterable(True)
    )
    panel = panel.override_by_regexp("/.*/", [_config("noValue", "")])  # or each empty cell, and its link, has the text for no data
    panel = _with_units(panel, units)
    for column, (title, url) in LINKS.items():
        if isinstance(ask, str) and _has_column(ask, column):
            panel = panel.override_by_name(column, [_config("links", [{"title": title, "url": url}])])
    return panel


def timeline(face: Face, ask: Ask, size: Size, states: Sequence[tuple[str, str]], *, most_points: int = 200) -> statetimeline.Panel:
    """States over time; SQL returns time, metric (name of the row), value: 0, 1 …, each a (text, color) of `states`."""
    panel = _common(statetimeline.Panel(), face, ask, size, "time_series").max_data_points(most_points)
    options = {
        str(number): dashboard.ValueMappingResult(text=text, color=color, index=number) for number, (text, color) in enumerate(states)
    }
    return panel.mappings([dashboard.ValueMap(options=options)]).show_value(common.VisibilityMode.NEVER).merge_values(True)


def query_variable(
    name: str, label: str, description: str, sql: str, *, multi: bool = False, all_value: str = ""
) -> builders.QueryVariable:
    """A variable with choices from the database, asked for again when the dashboard is opened and when a variable that it names changes."""
    variable = builders.QueryVariable(name).label(label).description(description).datasource(SOURCE)
    variable = variable.query(sql).refresh(dashboard.VariableRefresh.ON_DASHBOARD_LOAD).sort(dashboard.VariableSort.DISABLED)
    variable = variable.multi(multi).include_all(bool(all_value))
    return variable.all_value(all_value).current(dashboard.VariableOption(text="All", value="$__all")) if all_value else variable


def label_variable(name: str, label: str, description: str, metric: str, value: str) -> builders.QueryVariable:
    """A variable with the values that Prometheus has of a label of a metric, of which all are chosen at first."""
    variable = builders.QueryVariable(name).label(label).description(description).datasource(PROMETHEUS)
    variable = variable.query({"query": f"label_values({metric}, {value})", "refId": "A"}).sort(dashboard.VariableSort.ALPHABETICAL_ASC)
    variable = variable.refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED).multi(True).include_all(True).all_value(".*")
    return variable.current(dashboard.VariableOption(text="All", value="$__all"))


def annotation(name: str, color: str, sql: str) -> Any:
    """Marks over the time series; `sql` returns time, text, tags. The SDK's annotation has no place for a query of SQL: see"
    " `Annotation`."""
    return _AnnotationBuilder(name, color, sql)


class Annotation(dashboard.AnnotationQuery):
    """The SDK's annotation with the query that the data source needs."""

    sql: str = ""

    def to_json(self) -> dict[str, object]:
        """The SDK's fields, and the query."""
        query = {"editorMode": "code", "format": "table", "rawQuery": True, "rawSql": self.sql, "refId": "Anno"}
        return super().to_json() | {"target": query}


class _AnnotationBuilder:
    def __init__(self, name: str, color: str, sql: str) -> None:
        self._made = Annotation(name=name, datasource=SOURCE, enable=True, hide=False, icon_color=color)
        self._made.sql = sql

    def build(self) -> dashboard.AnnotationQuery:
        return self._made


def _common(panel: P, face: Face, ask: Ask, size: Size, format_: Format, *, instant: bool = False) -> P:
    """What every panel needs.

    Raises:
        ValueError: the face leaves something out.
    """
    if not all((face.title, face.unit, face.description, face.nothing)):
        raise ValueError(f"the panel {face.title!r} needs a title, a unit, a description and a text for no data")
    panel = panel.title(face.title).description(face.description).unit(face.unit).no_value(face.nothing)
    if face.unit == EXACT:
        panel = panel.decimals(DIGITS)
    if face.alerts:
        panel = panel.links([alerts.link(alert) for alert in face.alerts])
    source, targets = sent(ask, format_, instant=instant)
    for target in targets:
        panel = panel.with_target(target)
    return panel.datasource(source).span(size.width).height(size.height)


def _thresholds(limits: Sequence[Limit]) -> builders.ThresholdsConfig:
    return builders.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(alerts.steps(limits))


def _with_units(panel: T, units: Mapping[str, str] | None) -> T:
    for column, unit in (units or {}).items():
        panel = panel.override_by_name(column, [_config("unit", unit)])
    return panel


def _config(name: str, value: Any) -> dashboard.DynamicConfigValue:
    return dashboard.DynamicConfigValue(id_val=name, value=value)


def _has_column(sql: str, column: str) -> bool:
    return column in sql.rsplit("\nSELECT ", 1)[-1].split("\nFROM ", maxsplit=1)[0].replace(",", " ").split()
