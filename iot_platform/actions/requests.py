"""What may be asked: the arguments of each kind of action, checked when they are asked for, and again when they are carried out."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, JsonValue, ValidationError, model_validator

from iot_platform.actions.errors import ActionError
from iot_platform.quality.rules import GLOBAL_ONLY, RuleSetting
from iot_platform.telemetry.corrections import SETTINGS
from iot_platform.telemetry.decode import Reason

_Name = Annotated[str, Field(max_length=1024)]


def _text_only(value: object) -> object:
    """Numbers pass as Unix time elsewhere; here a time is a text."""
    if value is not None and not isinstance(value, str | datetime):
        raise ValueError("must be a time such as 2026-11-30T10:00:00Z")
    return value


_Moment = Annotated[AwareDatetime, BeforeValidator(_text_only)]
_Id = Annotated[str, Field(pattern=r"^[1-9]\d{0,17}$")]


class _Arguments(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True, serialize_by_alias=True)


class Replay(_Arguments):
    """Decode quarantined messages again, received in [from, to), for one reason or all. `rule`: a correction, named as the settings are, by
    which those are decoded that the platform's rules refuse; `keep`: and, by the drain, those of them that come from now on."""

    from_: _Moment = Field(alias="from")
    to: _Moment
    reason: Reason | None = None
    project: _Name | None = None
    rule: dict[str, JsonValue] = Field(default_factory=dict)
    keep: bool = False

    @model_validator(mode="after")
    def _forward(self) -> Self:
        if self.to <= self.from_:
            raise ValueError("to must be later than from")
        if self.keep and not self.rule:
            raise ValueError("keep belongs to a rule")
        if unknown := sorted(set(self.rule) - set(SETTINGS)):
            raise ValueError(f"rule.{unknown[0]} is none of {', '.join(SETTINGS)}")
        return self


class SilenceIncident(_Arguments):
    """Tell nobody of an incident until then; a moment that is past, or null, ends the silence."""

    incident_id: _Id
    until: _Moment | None
    reason: Annotated[str, Field(max_length=500)] = ""

    @model_validator(mode="after")
    def _why(self) -> Self:
        if self.until is not None and self.until > datetime.now(UTC) and not self.reason.strip():
            raise ValueError("say why: reason must not be empty")
        return self


class AcknowledgeIncident(_Arguments):
    """Say that somebody takes care of it."""

    incident_id: _Id


class EndCorrection(_Arguments):
    """Leave alone what comes from now on; what a correction made stays."""

    correction_id: _Id


class ChangeRule(_Arguments):
    """A quality rule for this tenant, or a project or metric of it; null is inherited; `remove`: back to what is set more widely."""

    rule: str
    project: _Name = ""
    metric: _Name = ""
    enabled: bool | None = None
    severity: Literal["WARN", "ERROR"] | None = None
    threshold: FiniteFloat | None = None
    window_seconds: int | None = None
    clear_seconds: int | None = None
    hold_seconds: int | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)
    remove: bool = False

    def setting(self, tenant: str) -> RuleSetting:
        """As the rules' own table has it. Raises pydantic.ValidationError."""
        return RuleSetting.model_validate({**self.model_dump(), "tenant": tenant})


class ChangeSeriesInfo(_Arguments):
    """What people say of one series, the whole of it."""

    project: _Name
    device: _Name
    metric: _Name
    display_name: Annotated[str, Field(max_length=200)] = ""
    unit: Annotated[str, Field(max_length=50)] = ""
    valid_min: FiniteFloat | None = None
    valid_max: FiniteFloat | None = None
    description: Annotated[str, Field(max_length=2000)] = ""

    @model_validator(mode="after")
    def _range(self) -> Self:
        if self.valid_min is not None and self.valid_max is not None and self.valid_min > self.valid_max:
            raise ValueError(f"valid_min {self.valid_min:g} is greater than valid_max {self.valid_max:g}")
        return self


Request = Replay | SilenceIncident | AcknowledgeIncident | EndCorrection | ChangeRule | ChangeSeriesInfo
KINDS: Final[Mapping[str, type[Request]]] = {
    "replay": Replay,
    "silence-incident": SilenceIncident,
    "acknowledge-incident": AcknowledgeIncident,
    "end-correction": EndCorrection,
    "change-rule": ChangeRule,
    "change-series-info": ChangeSeriesInfo,
}
LONG: Final = ("replay",)
"""Kinds that a Dagster run does; the others take milliseconds."""


def parse_request(tenant: str, kind: str, arguments: Mapping[str, Any]) -> Request:
    """The arguments, checked.

    Raises:
        ActionError: the first thing that is wrong, with the name of its field.
    """
    if kind not in KINDS:
        raise ActionError(f"there is no action {kind!r}", "kind")
    if _has_nul(arguments):
        raise ActionError("texts have no character U+0000")
    try:
        request = KINDS[kind].model_validate(dict(arguments))
        if isinstance(request, ChangeRule):
            if request.rule in GLOBAL_ONLY:
                raise ActionError(f"{request.rule} is about the whole platform", "rule")
            request.setting(tenant)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ActionError(first["msg"].removeprefix("Value error, "), ".".join(str(part) for part in first["loc"])) from error
    return request


def _has_nul(value: object) -> bool:
    """PostgreSQL has no such texts."""
    if isinstance(value, Mapping):
        return any(_has_nul(key) or _has_nul(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return any(map(_has_nul, value))
    return isinstance(value, str) and "\0" in value
