"""Interning: topics, sources and series to dense ids, and the ids of whole columns of a batch at once."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from iot_platform.telemetry.decode.limits import MAX_NAME_BYTES
from iot_platform.telemetry.decode.rules import DecodeRules

SourceName = tuple[str, str, str, str]  # topic, tenant, project, device
SeriesName = tuple[str, str, str, str]  # tenant, project, device, metric
Ids = npt.NDArray[np.int32]

UNNAMED = -1  # no id: the name breaks a rule, so the record is the plain decoder's to judge
_MAX_LAYOUT_CELLS = 20_000_000


def is_name(text: str) -> bool:
    """Whether a metric has 1..256 bytes."""
    return 0 < len(text) <= MAX_NAME_BYTES and (text.isascii() or len(text.encode()) <= MAX_NAME_BYTES)


@dataclass(slots=True, eq=False)
class Topic:
    """A topic that names tenant and project. `source` is its only source where the topic names the device too. `numbers_in_strings`: the
    project reads strings that spell numbers as such. `past_us`: how long before receive time its times may be."""

    text: str
    tenant: str
    project: str
    device: str | None
    source: int
    numbers_in_strings: bool
    past_us: int
    devices: dict[str, int] = field(default_factory=dict)  # device of the payload → source


class Names:
    """Append-only tables: an id once given stays valid as long as this object."""

    def __init__(self, rules: DecodeRules) -> None:
        self.sources: list[SourceName] = []
        self.series: list[SeriesName] = []
        self._rules = rules
        self._source_ids: dict[SourceName, int] = {}
        self._series_ids: dict[SeriesName, int] = {}
        self._topics: dict[bytes, Topic | None] = {}
        self._owner_names: list[tuple[str, str, str]] = []  # tenant, project, device
        self._owner_ids: dict[tuple[str, str, str], int] = {}
        self._source_owners: list[int] = []
        self._point_series: dict[tuple[int, str], int] = {}
        self._layouts: dict[tuple[str, ...], Layout] = {}
        self._layout_cells = 0

    @property
    def size(self) -> int:
        """Number of names that are remembered."""
        return len(self.sources) + len(self.series) + len(self._topics) + len(self._owner_names)

    def source(self, topic: str, tenant: str, project: str, device: str) -> int:
        name = (topic, tenant, project, device)
        known = self._source_ids.get(name)
        if known is None:
            known = self._source_ids[name] = len(self.sources)
            self.sources.append(name)
            self._source_owners.append(self.owner(tenant, project, device))
        return known

    def owner(self, tenant: str, project: str, device: str) -> int:
        """Id of a device, whatever topic it is named by; UNNAMED if the device has more than 256 bytes."""
        name = (tenant, project, device)
        known = self._owner_ids.get(name)
        if known is None:
            if len(device.encode()) > MAX_NAME_BYTES:
                return UNNAMED
            known = self._owner_ids[name] = len(self._owner_names)
            self._owner_names.append(name)
        return known

    def owners(self, sources: Sequence[int]) -> list[int]:
        """Id of each source's device."""
        return [UNNAMED if source == UNNAMED else self._source_owners[source] for source in sources]

    def serie(self, tenant: str, project: str, device: str, metric: str) -> int:
        name = (tenant, project, device, metric)
        known = self._series_ids.get(name)
        if known is None:
            known = self._series_ids[name] = len(self.series)
            self.series.append(name)
        return known

    def topics(self, topics: Sequence[bytes]) -> list[Topic | None]:
        """What each topic names; None for those that only the plain decoder can judge."""
        known = list(map(self._topics.get, topics))
        if None in known:
            for row in [row for row, found in enumerate(known) if found is None]:
                topic = topics[row]
                if topic not in self._topics:
                    self._topics[topic] = self._read_topic(topic)
                known[row] = self._topics[topic]
        return known

    def _read_topic(self, topic: bytes) -> Topic | None:
        named = self._rules.topic_names(topic)
        if named is None or named.tenant is None or named.project is None or b"\x00" in topic:
            return None
        if named.device is not None and len(named.device.encode()) > MAX_NAME_BYTES:
            return None
        text = topic.decode()
        if self._rules.topic_codec(text) is not None:
            return None
        source = self.source(text, named.tenant, named.project, named.device) if named.device is not None else UNNAMED
        return Topic(
            text,
            named.tenant,
            named.project,
            named.device,
            source,
            self._rules.reads_numbers_in_strings(named.tenant, named.project),
            self._rules.past_us_of(text),
        )

    def source_column(self, topics: Sequence[Topic], devices: Sequence[str] | None) -> Ids:
        """Source ids of records by topic and device of the payload (None: the topic's own, or none at all)."""
        if devices is None:
            found = [topic.source for topic in topics]
            if UNNAMED in found:
                found = [self._device_source(topic, "") if topic.device is None else topic.source for topic in topics]
            return np.array(found, np.int32)
        known = [topic.devices.get(device) for topic, device in zip(topics, devices, strict=True)]
        if None in known:
            for row in [row for row, found in enumerate(known) if found is None]:
                known[row] = self._device_source(topics[row], devices[row])
        return np.array(known, np.int32)

    def _device_source(self, topic: Topic, device: str) -> int:
        known = topic.devices.get(device)
        if known is None:
            if len(device) > MAX_NAME_BYTES or len(device.encode()) > MAX_NAME_BYTES:
                return UNNAMED
            known = topic.devices[device] = self.source(topic.text, topic.tenant, topic.project, device)
        return known

    def point_column(self, owners: Sequence[int], metrics: Sequence[str]) -> Ids:
        """Series ids of points by device and metric; UNNAMED where one of them breaks a rule."""
        known = list(map(self._point_series.get, zip(owners, metrics, strict=True)))
        if None in known:
            for at in [at for at, found in enumerate(known) if found is None]:
                known[at] = self._point_serie((owners[at], metrics[at]))
        return np.array(known, np.int32)

    def _point_serie(self, key: tuple[int, str]) -> int:
        owner, metric = key
        known = self._point_series.get(key)
        if known is None:
            if owner == UNNAMED or not is_name(metric):
                return UNNAMED
            known = self._point_series[key] = self.serie(*self._owner_names[owner], metric)
        return known

    def layout(self, metrics: tuple[str, ...]) -> "Layout":
        """The table of series ids of records that have exactly these metrics."""
        found = self._layouts.get(metrics)
        if found is None:
            if self._layout_cells > _MAX_LAYOUT_CELLS:  # the tables are a cache: the ids themselves stay
                self._layouts.clear()
                self._layout_cells = 0
            found = self._layouts[metrics] = Layout(metrics)
        return found

    def series_table(self, layout: "Layout", sources: Ids) -> npt.NDArray[np.int32]:
        """[records, metrics] series ids."""
        before = layout.cells
        slots = layout.slots(sources, self)
        self._layout_cells += layout.cells - before
        taken: npt.NDArray[np.int32] = layout.table[slots]
        return taken


class Layout:
    """Series ids by (source, column) for one list of metric names; rows are filled at a source's first record."""

    def __init__(self, metrics: tuple[str, ...]) -> None:
        self.metrics = metrics
        self.sound = len(set(metrics)) == len(metrics) and all(map(is_name, metrics))
        self.table = np.empty((16, len(metrics)), np.int32)
        self._used = 0
        self._slot_of = np.full(64, -1, np.int32)

    @property
    def cells(self) -> int:
        """Size in integers."""
        return self.table.size + self._slot_of.size

    def slots(self, sources: Ids, names: Names) -> Ids:
        """Row of the table for each source."""
        if len(names.sources) > len(self._slot_of):
            grown = np.full(2 * len(names.sources), -1, np.int32)
            grown[: len(self._slot_of)] = self._slot_of
            self._slot_of = grown
        slots = self._slot_of[sources]
        missing = slots < 0
        if missing.any():
            for source in np.unique(sources[missing]).tolist():
                self._fill(source, names)
            slots = self._slot_of[sources]
        return slots

    def _fill(self, source: int, names: Names) -> None:
        if self._used == len(self.table):
            self.table = np.concatenate([self.table, np.empty_like(self.table)])
        _, tenant, project, device = names.sources[source]
        self.table[self._used] = [names.serie(tenant, project, device, metric) for metric in self.metrics]
        self._slot_of[source] = self._used
        self._used += 1
