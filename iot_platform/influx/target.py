"""Which InfluxDB servers follow the ledger: IOT_INFLUX_URL, taken apart."""

import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from iot_platform.influx.errors import InfluxConfigError
from iot_platform.settings import Settings

VARIABLE: Final = "IOT_INFLUX_URL"
DEFAULT_NAME: Final = "influx"
_NAMED: Final = re.compile(r"([a-z][a-z0-9_-]{0,31})=(https?://.*)", re.DOTALL)
_OPTIONS: Final = {"rp"}


@dataclass(frozen=True)
class Target:
    """One server and its database. `name`: the sink's, in tables, metrics and commands. `user` without `password` is never set; without a
    user the password is a token."""

    name: str
    address: str
    database: str
    retention_policy: str = ""
    user: str = ""
    password: str = field(default="", repr=False)


def targets(settings: Settings) -> tuple[Target, ...]:
    """All of them, none where IOT_INFLUX_URL is not set.

    Raises:
        InfluxConfigError: the setting is not `[name=]http[s]://[user:password@]host[:port]/database[?rp=policy]`, with commas between.
    """
    if settings.influx_url is None:
        return ()
    # A comma inside an address is written %2C, so that one between two addresses is what it seems.
    found = tuple(_target(part.strip()) for part in settings.influx_url.get_secret_value().split(",") if part.strip())
    names = [each.name for each in found]
    if len(set(names)) != len(names):
        raise InfluxConfigError(f"{VARIABLE}: two servers have the name '{max(names, key=names.count)}'; write name=http://…")
    return found


def target(settings: Settings, name: str | None) -> Target:
    """The one of this name; None: the only one.

    Raises:
        InfluxConfigError: there is none, or several and no name.
    """
    known = targets(settings)
    if not known:
        raise InfluxConfigError(f"{VARIABLE} is not set: no InfluxDB follows this platform")
    if name is None and len(known) == 1:
        return known[0]
    for each in known:
        if each.name == name:
            return each
    raise InfluxConfigError(f"which sink? {VARIABLE} names {', '.join(each.name for each in known)}")


def _target(text: str) -> Target:
    named = _NAMED.fullmatch(text)
    name, url = (named[1], named[2]) if named else (DEFAULT_NAME, text)
    form = f"{VARIABLE} must be [name=]http[s]://[user:password@]host[:port]/database[?rp=policy], with commas between several"
    try:
        parts = urlsplit(url)
        port = parts.port or 8086
    except ValueError as error:
        raise InfluxConfigError(f"{form}: {error}") from error
    database = unquote(parts.path.strip("/"))
    options = dict(parse_qsl(parts.query))
    if parts.scheme not in ("http", "https") or not parts.hostname or not database or parts.fragment or set(options) - _OPTIONS:
        raise InfluxConfigError(form)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    if parts.username and not parts.password:
        raise InfluxConfigError(f"{VARIABLE}: user '{parts.username}' has no password (a token is written :token@)")
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    return Target(name, f"{parts.scheme}://{host}:{port}", database, options.get("rp", ""), user, password)
