"""How a project's messages become measurements, where projects may differ: reads and changes project_option."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeVar

from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.telemetry.errors import OptionError

_Choice = TypeVar("_Choice")

CONFLICTS: Final = "conflicts"
RETAINED: Final = "retained"
NUMBERS_IN_STRINGS: Final = "numbers_in_strings"


@dataclass(frozen=True)
class Option:
    """An option: its values, the default first, each with what it does."""

    name: str
    values: dict[str, str]

    @property
    def default(self) -> str:
        """What counts where nobody chose."""
        return next(iter(self.values))


OPTIONS: Final = {
    option.name: option
    for option in (
        Option(
            CONFLICTS,
            {
                "first": "the value that was drained first stays",
                "last": "a later record's value takes its place",
                "keep": "both stay, the later one at the next free microsecond, marked by flags",
            },
        ),
        Option(
            RETAINED,
            {
                "changes": "a retained message without a time of its own is stored where it differs from the value before it",
                "all": "every retained message is stored as a reading of the time when it was received",
            },
        ),
        Option(
            NUMBERS_IN_STRINGS, {"off": "a string is a text, whatever it holds", "on": 'a string that is a JSON number ("21.5") is one'}
        ),
    )
}
"""The names and values that project_option takes (its CHECK lists them again)."""

_SHOW: Final = """
SELECT o.name, o.tenant_id, o.project_id, o.value, o.changed_at, o.changed_by FROM project_option o
ORDER BY o.name, o.tenant_id, o.project_id"""
_SET: Final = """
INSERT INTO project_option AS o (tenant_id, project_id, name, value, changed_by) VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (tenant_id, project_id, name) DO UPDATE SET value = excluded.value, changed_at = now(), changed_by = excluded.changed_by
WHERE o.value <> excluded.value"""
_RESET: Final = "DELETE FROM project_option WHERE tenant_id = %s AND project_id = %s AND name = %s"
_EXISTS: Final = "SELECT EXISTS (SELECT FROM project WHERE tenant_id = %s AND %s IN ('', project_id))"


@dataclass(frozen=True)
class Choice:
    """A row of project_option: tenant and project empty for everybody, project empty for a whole tenant."""

    name: str
    tenant: str
    project: str
    value: str
    changed_at: datetime
    changed_by: str


def narrowest(chosen: Mapping[tuple[str, str], _Choice], tenant: str, project: str) -> _Choice | None:
    """Of what was chosen by (tenant, project), what counts for a project: its own choice, else its tenant's (project ""), else everybody's
    (both ""), else None."""
    for whose in ((tenant, project), (tenant, ""), ("", "")):
        if (found := chosen.get(whose)) is not None:
            return found
    return None


class ProjectOptions:
    """What was chosen, as of one moment. A drain loads it anew with each shift and after each error."""

    def __init__(self, chosen: Iterable["Choice"] = ()) -> None:
        self._chosen: dict[str, dict[tuple[str, str], str]] = {}
        for item in chosen:
            self._chosen.setdefault(item.name, {})[item.tenant, item.project] = item.value

    @classmethod
    def load(cls, connection: Connection) -> "ProjectOptions":
        """Every choice. Rolls back."""
        return cls(choices(connection))

    def value(self, name: str, tenant: str, project: str) -> str:
        """What counts for a project: its own choice, else its tenant's, else everybody's, else the default."""
        return narrowest(self._chosen.get(name, {}), tenant, project) or OPTIONS[name].default

    def switches(self, name: str) -> dict[tuple[str, str], bool]:
        """Of an option that is on or off: what was chosen, by tenant and project."""
        return {whose: value == "on" for whose, value in self._chosen.get(name, {}).items()}

    def for_all(self, name: str, value: str) -> "ProjectOptions":
        """The same, but this value of an option counts for everybody."""
        made = ProjectOptions()
        made._chosen = {**self._chosen, name: {("", ""): value}}
        return made

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ProjectOptions) and self._chosen == other._chosen

    def __hash__(self) -> int:
        return hash(frozenset((name, *item) for name, chosen in self._chosen.items() for item in chosen.items()))


def choices(connection: Connection) -> list[Choice]:
    """All rows, by option, the broadest first. Rolls back."""
    with connection.cursor() as cursor:
        cursor.execute(_SHOW)
        found = [Choice(*row) for row in cursor.fetchall()]
    connection.rollback()
    return found


def set_option(connection: Connection, name: str, value: str, *, tenant: str = "", project: str = "", changed_by: str = "") -> bool:
    """Choose for everybody, a tenant or a project; False if it was chosen already. Commits.

    Raises:
        OptionError: no such option, or it has no such value; a project without its tenant.
    """
    option = _known(name)
    if value not in option.values:
        raise OptionError(f"{name} has no value {value!r}; there are: {', '.join(option.values)}")
    _check_scope(tenant, project)
    with connection.cursor() as cursor:
        cursor.execute(_SET, (tenant, project, name, value, changed_by))
        changed = cursor.rowcount > 0
    connection.commit()
    return changed


def reset_option(connection: Connection, name: str, *, tenant: str = "", project: str = "") -> bool:
    """Take a choice back, so that the broader one counts again; False if there was none. Commits. Raises OptionError as set_option."""
    _known(name)
    _check_scope(tenant, project)
    with connection.cursor() as cursor:
        cursor.execute(_RESET, (tenant, project, name))
        removed = cursor.rowcount > 0
    connection.commit()
    return removed


def is_known(connection: Connection, tenant: str, project: str) -> bool:
    """Whether a message of this tenant (and project) was drained. Rolls back."""
    with connection.cursor() as cursor:
        cursor.execute(_EXISTS, (tenant, project))
        (known,) = cursor.fetchone() or (False,)
    connection.rollback()
    return bool(known)


def _known(name: str) -> Option:
    if name not in OPTIONS:
        raise OptionError(f"there is no option {name!r}; there are: {', '.join(OPTIONS)}")
    return OPTIONS[name]


def _check_scope(tenant: str, project: str) -> None:
    if project and not tenant:
        raise OptionError(f"project {project} needs its tenant: --tenant T --project {project}")
