"""The mapping file: which tag or column of an export is the tenant, project, device, metric, value and time."""

import re
import tomllib
from pathlib import Path
from typing import Any, Final, Literal, Self, TypeAlias
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from iot_platform.imports.errors import ImportRefusedError

Format: TypeAlias = Literal["line_protocol", "csv", "parquet"]
ENDINGS: Final[dict[str, Format]] = {".lp": "line_protocol", ".txt": "line_protocol", ".csv": "csv", ".parquet": "parquet"}
UNITS: Final = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
_SOURCES: Final = ("value", "column", "tag", "context")


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(_Strict):
    """Where a name comes from: the same `value` for all rows, a `column`, a `tag`, or the export's `context` (its comment lines
    # CONTEXT-DATABASE and # CONTEXT-RETENTION-POLICY)."""

    value: str | None = Field(None, min_length=1, max_length=256)
    column: str | None = None
    tag: str | None = None
    context: Literal["database", "retention_policy"] | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(getattr(self, name) is not None for name in _SOURCES) != 1:
            raise ValueError('must be one of { value = "…" }, { column = "…" }, { tag = "…" } and { context = "database" }')
        return self


class Time(_Strict):
    """The column with the time: numbers of this `unit` since 1970 (UTC), or `iso` texts, of which those without a zone are in `zone`."""

    column: str
    unit: Literal["iso", "s", "ms", "us", "ns"] = "iso"
    zone: str = "UTC"

    @field_validator("zone")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ValueError, OSError, LookupError):
            raise ValueError("is no time zone; write for example Europe/Berlin") from None
        return value


class Mapping(_Strict):
    """A mapping. Line protocol has `precision`, `metric` as a text with {measurement} and {field}, and `tags` (what becomes of those
    that name nothing). Tables have `time`, and either `metric` and `value` (a row is one measurement) or `metrics` (metric = column; every
    column that names nothing, if it is left out). `conflicts`: instead of the projects' option (conflicts_of)."""

    format: Format | None = None
    conflicts: Literal["first", "last"] | None = None
    tenant: Source
    project: Source
    device: Source | None = None
    precision: Literal["ns", "us", "ms", "s"] = "ns"
    metric: str | Source | None = None
    tags: Literal["append", "drop"] = "append"
    separator: str = Field(",", min_length=1, max_length=1)
    time: Time | None = None
    value: Source | None = None
    metrics: dict[str, str] = Field(default_factory=dict)

    def conflicts_of(self, form: Format) -> str | None:
        """Which of two values of a series at one time stays; None: what the project's option says. InfluxDB keeps the last one, and an
        export has, behind each other, also those that were overwritten."""
        return self.conflicts or ("last" if form == "line_protocol" else None)

    def wrong(self, form: Format) -> tuple[str, str] | None:
        """The first member that does not fit files of a format, and why."""
        named = {
            name: item for name in ("tenant", "project", "device", "metric", "value") if isinstance(item := getattr(self, name), Source)
        }
        if form == "line_protocol":
            if found := next((name for name in ("time", "value", "metrics") if getattr(self, name)), None):
                return found, "is for csv and parquet: line protocol has its own"
            if found := next((name for name, item in named.items() if item.column is not None), None):
                return found, "names a column, but line protocol has tags"
            if self.metric is not None and (isinstance(self.metric, Source) or "{field}" not in self.metric):
                return "metric", 'must be a text with {field}, and may have {measurement}, such as "{measurement}.{field}"'
            return None
        if found := next((name for name, item in named.items() if item.tag is not None or item.context is not None), None):
            return found, "names a tag or context, but a table has columns"
        if self.time is None:
            return "time", 'is missing: time = { column = "…", unit = "iso" }'
        if isinstance(self.metric, str):
            return "metric", 'must be { column = "…" } or { value = "…" } for a table'
        if (self.metric is None) != (self.value is None):
            return ("value" if self.metric else "metric"), "is missing: metric and value belong together"
        if self.value is not None and (self.value.column is None or self.metrics):
            return ("value", "must be a column") if self.value.column is None else ("metrics", "and metric with value exclude each other")
        return None


def read(path: Path, form: Format | None = None, file: Path | None = None) -> tuple[Mapping, Format, str]:
    """The mapping, the format of the file that it is for (as the mapping says, else by the file's ending), and the mapping's text.

    Raises:
        ImportRefusedError: it cannot be read, or means nothing; names file, line and key.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ImportRefusedError(f"the mapping {path} cannot be read: {error}") from error
    try:
        mapping = Mapping.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ImportRefusedError(f"{path}: {error}") from error
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        keys = [str(part) for part in first["loc"] if part not in ("str", "Source")]
        what = {"missing": "is missing", "extra_forbidden": f"is unknown; there are {', '.join(Mapping.model_fields)}"}
        reason = what.get(first["type"], first["msg"].removeprefix("Value error, "))
        raise _wrong(path, text, keys, reason) from error
    form = form or mapping.format or (ENDINGS.get(Path(file.name.removesuffix(".gz")).suffix) if file else None)
    if form is None:
        raise _wrong(
            path, text, ["format"], f'is missing, and the name of {file} does not tell: format = "line_protocol", "csv" or "parquet"'
        )
    if (found := mapping.wrong(form)) is not None:
        raise _wrong(path, text, [found[0]], found[1])
    return mapping, form, text


def _wrong(path: Path, text: str, keys: list[str], reason: str) -> ImportRefusedError:
    return ImportRefusedError(f"{path}, line {_line(text, keys)}: {'.'.join(keys)} {reason}")


def _line(text: str, keys: list[str]) -> int:
    """The line of a key, or of the nearest one above it that is there; 1 where none is."""
    lines, found, start = text.splitlines(), 1, 0
    for key in keys:
        name = rf"[\"']?{re.escape(key)}[\"']?"
        at = next((n for n in range(start, len(lines)) if re.match(rf"\s*(\[\s*{name}\s*\]|{name}\s*[=.])", lines[n])), None)
        if at is None:
            break
        found, start = at + 1, at
    return found


def json_text(value: Any) -> str:
    """A name as a JSON string."""
    import json

    return json.dumps(value, ensure_ascii=False)
