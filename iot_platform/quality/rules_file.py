"""rules.yaml: settings of quality rules as a list, read with the line of every mistake."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import yaml

from iot_platform.quality.errors import RulesError
from iot_platform.quality.rules import RuleSetting, parse_setting

MOST_BYTES: Final = 10_000_000
_HEAD: Final = "# Quality rules. `iot quality rules import` sets what is named here and leaves the rest as it is.\n"


def read_file(path: Path) -> list[RuleSetting]:
    """The settings of a file, all of them valid.

    Raises:
        RulesError: file, line and what is wrong; of several mistakes the first.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise RulesError(f"{path}: larger than {MOST_BYTES:,} bytes")
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RulesError(f"{path}: cannot be read: {error}") from error
    try:
        node = yaml.compose(text, yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise RulesError(f"{path}:{mark.line + 1 if mark else 1}: no YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise RulesError(f"{path}: no YAML: {error}") from error
    return _settings(path, node)


def _settings(path: Path, node: Any) -> list[RuleSetting]:
    if isinstance(node, yaml.MappingNode) and len(node.value) == 1 and node.value[0][0].value == "rules":
        node = node.value[0][1]
    if not isinstance(node, yaml.SequenceNode) or not node.value:
        line = node.start_mark.line + 1 if node is not None else 1
        raise RulesError(f"{path}:{line}: expected a list of rules: - rule: range …")
    found: list[RuleSetting] = []
    places: dict[tuple[str, ...], int] = {}
    for item in node.value:
        line = item.start_mark.line + 1
        setting = _setting(path, item)
        key = (setting.rule, setting.tenant, setting.project, setting.metric)
        if key in places:
            raise RulesError(f"{path}:{line}: {setting.rule} of {setting.scope} is set in line {places[key]} already")
        places[key] = line
        found.append(setting)
    return found


def _setting(path: Path, node: Any) -> RuleSetting:
    """One item; a mistake in one of its values is reported with the line of that value."""
    if not isinstance(node, yaml.MappingNode):
        raise RulesError(f"{path}:{node.start_mark.line + 1}: expected a rule: rule: range …")
    lines: dict[str, int] = {}
    values: dict[str, Any] = {}
    for key, value in node.value:
        name, line = str(key.value), key.start_mark.line + 1
        if name in lines:
            raise RulesError(f"{path}:{line}: {name} is set in line {lines[name]} already")
        lines[name] = line
        if isinstance(value, yaml.MappingNode):
            names = [str(inner.value) for inner, _ in value.value]
            for number, (inner, _) in enumerate(value.value):
                if names[number] in names[:number]:
                    raise RulesError(f"{path}:{inner.start_mark.line + 1}: {names[number]} is set twice")
            lines |= {str(inner.value): inner.start_mark.line + 1 for inner, _ in value.value}
        try:
            values[name] = _plain(value)
        except (yaml.YAMLError, ValueError, TypeError) as error:
            raise RulesError(f"{path}:{line}: {name}: {error}") from error
    for name in ("tenant", "project", "metric"):
        if isinstance(values.get(name), int) and not isinstance(values[name], bool):
            values[name] = _scalar(node, name)  # ids of 19 digits need no quotes
    try:
        return parse_setting(values, "")
    except RulesError as error:
        reason = str(error).removeprefix(": ")
        named = [
            name for name in lines if reason.startswith((f"{name}:", f"{name} ", f"parameter {name} ")) or f"parameter '{name}'" in reason
        ]
        line = lines[named[0]] if named else node.start_mark.line + 1
        raise RulesError(f"{path}:{line}: {reason}") from error


def _plain(node: Any) -> Any:
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _scalar(node: Any, name: str) -> str:
    return next(str(value.value) for key, value in node.value if key.value == name)


def write_text(settings: Iterable[RuleSetting]) -> str:
    """YAML that `read_file` reads back."""
    items = []
    for setting in settings:
        values = setting.model_dump(exclude={"remove"}, warnings=False)
        items.append({name: value for name, value in values.items() if value is not None and value not in ("", {})})
    return _HEAD + str(yaml.safe_dump(items, sort_keys=False, allow_unicode=True, width=120))
