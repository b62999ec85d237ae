"""What must not leave the machine, taken out of texts and documents: secrets that are known by their value, and what looks like one."""

import base64
import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from dotenv import dotenv_values

GONE: Final = "[redacted]"
LEAST_CHARACTERS: Final = 5
"""A shorter password is only found where a rule knows its place: taken out everywhere it would take words apart."""
LONG_WORD: Final = 10
_FOLDERS: Final = frozenset({"PWD", "OLDPWD"})
"""Of the shell: no passwords."""
_FILE_BYTES: Final = 256 * 1024
_WORDS: Final = (
    r"passw(?:or)?d|passwd|\bpwd\b|passphrase|secret|token|credential|api[-_.]?key|access[-_.]?key|private[-_.]?key|ssl[-_.]?key\b"
    r"|authorization|jaas|\bpassfile\b"
)
_NAME: Final = re.compile(_WORDS, re.IGNORECASE)
_CONTENT: Final = re.compile(r"^(?:payload|value|value_text|body|raw|content|sample|example)$", re.IGNORECASE)
_PLACE: Final = re.compile(r"(?:_FILE|_DIR|_PATH|\.location)$", re.IGNORECASE)
_URL: Final = re.compile(r"([A-Za-z][\w+.-]*://[^\s/:@\"'<>]*):([^\s/\"'<>]+)@")
_NO_PLACE: Final = r"(?<!_FILE)(?<!_DIR)(?<!_PATH)(?<!\.location)"
_KEY: Final = re.compile(r"-----BEGIN [^-]*PRIVATE KEY-----.*?(?:-----END [^-]*PRIVATE KEY-----|\Z)", re.DOTALL)
_PATTERNS: Final = (
    (_URL, rf"\1:{GONE}@"),
    (re.compile(r"\b(Bearer|Basic)\s+[\w.~+/=-]+", re.IGNORECASE), rf"\1 {GONE}"),
    (re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]*"), GONE),  # JSON web tokens
    (re.compile(r"SCRAM-SHA-\d+\$\S+"), GONE),
    (re.compile(r"\bAKIA[0-9A-Z]{16}\b"), GONE),
    (re.compile(rf"(?im)^(\s*[\w.-]*(?:{_WORDS})[\w.-]*)[ \t]+\S+[ \t]*$"), rf"\1 {GONE}"),  # Mosquitto's configuration
    (re.compile(rf"(?i)((?:{_WORDS})[\w.-]*{_NO_PLACE}[\"']?\s*[=:]\s*)(?:\"[^\"]*\"|'[^']*'|[^\s,;&}}\])\"']+)"), rf"\1{GONE}"),
    (re.compile(r"(?i)(\bpassword\s+)'[^']*'"), rf"\1{GONE}"),  # SQL
    # What PostgreSQL tells of data: rows, parameters, statements.
    (re.compile(r"\b(DETAIL|CONTEXT|STATEMENT|QUERY|LINE \d+):.*"), r"\1: [left out]"),
    (re.compile(r"(invalid input (?:syntax|value) for [^:\n]*: )\".*\""), r"\1[left out]"),
)
"""What each looks like, and what stays of it."""


class Scrubber:
    """Takes secrets out. `known`: their values, in whatever form they may be written."""

    def __init__(self, known: Iterable[str]) -> None:
        forms = {form for value in known for form in _forms(value.strip()) if len(form) >= LEAST_CHARACTERS}
        self._known = re.compile("|".join(map(_pattern, sorted(forms, key=len, reverse=True)))) if forms else None

    def text(self, text: str) -> str:
        """A text of people or programs. A line that is JSON stays JSON."""
        return "\n".join(self._line(line) for line in _KEY.sub(GONE, self._without_known(text)).split("\n"))

    def _line(self, line: str) -> str:
        if line.startswith("{"):
            try:
                return json.dumps(self.document(json.loads(line)), ensure_ascii=False)
            except ValueError:
                pass
        return _without_patterns(line)

    def _without_known(self, text: str) -> str:
        return self._known.sub(GONE, text) if self._known is not None else text

    def _string(self, text: str) -> str:
        return _without_patterns(_KEY.sub(GONE, self._without_known(text)))

    def document(self, value: Any, name: str = "") -> Any:
        """The same document without them: nothing stays below a key that names a secret or holds what a device sent."""
        if (is_secret(name) or _CONTENT.match(name)) and value not in (None, "", True, False):
            return GONE
        if isinstance(value, Mapping):
            return {self._string(str(key)): self.document(item, str(key)) for key, item in value.items()}
        if isinstance(value, list | tuple | set):
            return [self.document(item) for item in value]
        if isinstance(value, str):
            return self._string(value)
        return value if isinstance(value, int | float | bool | None) else self._string(str(value))

    def holds_secret(self, data: str) -> bool:
        """Whether a known one is still in it."""
        return self._known is not None and self._known.search(data) is not None


def _without_patterns(text: str) -> str:
    for pattern, left in _PATTERNS:
        text = pattern.sub(left, text)
    return text


def is_secret(name: str) -> bool:
    """Whether a variable or key of this name holds a secret itself; one that says where it is does not."""
    return bool(_NAME.search(name)) and not _PLACE.search(name) and name not in _FOLDERS


def without_password(url: str) -> str:
    """A URL, or several with commas between, without passwords: neither before the host nor among its parameters."""
    shown = _URL.sub(rf"\1:{GONE}@", url)
    return re.sub(rf"([?&][^=&]*(?:{_WORDS})[^=&]*=)[^&\s]+", rf"\1{GONE}", shown, flags=re.IGNORECASE)


def known_secrets(values: Mapping[str, Any], places: Iterable[Path], folders: Iterable[Path] = (), files: Iterable[Path] = ()) -> set[str]:
    """Every secret that this process can find: in these settings (variable → value), in the environment, in files like `.env` (`places`),
    in files that any of them name, in the files of `folders`, in `files`, in PostgreSQL's password file. What cannot be read has none."""
    found: set[str] = set()
    named = [*((name, str(value)) for name, value in values.items()), *os.environ.items()]
    for place in places:
        named += [(name, value or "") for name, value in dotenv_values(stream=io.StringIO(_content(place))).items()]
    for folder in folders:
        for path in _paths(folder):
            content = _content(path)
            named.append((path.name.upper(), content))
            if not path.name.lower().startswith("iot_"):
                found |= set(_of_file(content))
    for name, value in named:
        found |= set(_of_value(name, value))
    for name, value in named:
        if _PLACE.search(name) and (_NAME.search(name) or re.search(r"KEY|LOGIN|CERT", name)) and value:
            found |= set(_of_file(_content(Path(value))))
    for file in files:
        found |= set(_of_file(_content(file)))
    for line in _content(_pgpass()).splitlines():
        found.add(line.rsplit(":", 1)[-1])
    return {value for value in found if value.strip()}


def _pgpass() -> Path:
    named = os.environ.get("PGPASSFILE")
    try:
        return Path(named) if named else Path("~/.pgpass").expanduser()
    except RuntimeError:  # no home directory
        return Path(os.devnull)


def _of_value(name: str, value: str) -> Iterator[str]:
    if is_secret(name) and "://" not in value:
        yield value
    for url in value.split(",") if "://" in value else ():
        try:
            parts = urlsplit(url.strip())
            password, query = parts.password, parts.query
        except ValueError:
            continue
        if password:
            yield from (password, unquote(password))
        yield from (item for key, item in parse_qsl(query) if _NAME.search(key) and not _PLACE.search(key))
    if value.startswith("{"):
        try:
            document = json.loads(value)
        except ValueError:
            return
        yield from (str(item) for key, item in document.items() if is_secret(key))


def _of_file(content: str) -> Iterator[str]:
    """A password, name:password, a JSON document of a login, or a key: each line of it."""
    if "PRIVATE KEY" in content:
        yield from (line for line in content.splitlines() if len(line) >= 16 and not line.startswith("-"))
        return
    if "-----BEGIN" in content:
        return  # certificates are no secret
    stripped = content.strip()
    try:
        document = json.loads(stripped)
    except ValueError:
        document = None
    if isinstance(document, dict):
        yield from (str(item) for item in document.values() if isinstance(item, str))
        return
    yield stripped
    yield from (line.strip() for line in stripped.splitlines())
    if ":" in stripped and "\n" not in stripped:
        yield stripped.partition(":")[2]


def _paths(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _content(path: Path) -> str:
    try:
        with path.open("rb") as opened:
            return opened.read(_FILE_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


def _pattern(form: str) -> str:
    """A short word is taken out as a word only: with the password "postgres" there would be no "postgresql" left."""
    return rf"\b{re.escape(form)}\b" if form.isalpha() and len(form) < LONG_WORD else re.escape(form)


def _forms(value: str) -> set[str]:
    raw = value.encode("utf-8", "surrogateescape")
    return {
        value,
        quote(value, safe=""),
        quote(value),
        json.dumps(value)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1],
        base64.b64encode(raw).decode(),
        base64.b64encode(raw).decode().rstrip("="),
        raw.hex(),
    }
