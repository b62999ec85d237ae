"""Logins, sessions and API keys as the API sees them: rows of the console's own tables, read and written as iot_console."""

import asyncio
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from starlette.requests import Request

from iot_platform.accounts import passwords
from iot_platform.accounts.keys import PREFIX, digest
from iot_platform.accounts.users import ROLES, Role
from iot_platform.api.limits import FIRST_LOCK_SECONDS, FREE_FAILURES, LONGEST_LOCK_SECONDS, MOST_REMEMBERED
from iot_platform.api.problems import Problem

if TYPE_CHECKING:
    from iot_platform.api.state import State

COOKIE: Final = "iot_session"
CSRF_HEADER: Final = "X-CSRF-Token"
MOST_LOGINS: Final = 50
"""At once, of which two passwords are tried at a time."""
MOST_SESSIONS: Final = 50
"""Of one user; the oldest ends."""

_SESSION: Final = """
SELECT s.user_id, u.name, u.display_name, u.administrator, s.expires_at, s.last_seen_at < now() - interval '1 minute',
       coalesce((SELECT json_agg(json_build_array(t.tenant_id, t.name, g.role, t.role_name) ORDER BY t.tenant_id)
                 FROM console_grant g JOIN console_tenant t USING (tenant_id) WHERE g.user_id = u.user_id), '[]')
FROM console_session s JOIN console_user u USING (user_id)
WHERE s.token_sha256 = %(token)s AND s.expires_at > now() AND s.last_seen_at > now() - make_interval(secs => %(idle)s) AND NOT u.disabled"""
_KEY: Final = """
SELECT k.key_id, k.name, k.tenant_id, t.name, t.role_name, coalesce(k.last_used_at < now() - interval '1 minute', true)
FROM api_key k JOIN console_tenant t USING (tenant_id)
WHERE k.key_sha256 = %(token)s AND (k.expires_at IS NULL OR k.expires_at > now())"""
_LOGIN: Final = """
SELECT user_id, password_hash, extract(epoch FROM locked_until - now())::double precision FROM console_user
WHERE name = %(name)s AND NOT disabled"""
_LOGIN_OF_NOBODY: Final = """
SELECT extract(epoch FROM locked_until - now())::double precision FROM console_unknown_name WHERE name_hmac = %(name)s"""
_ONE_MORE: Final = """failures = n.failures + 1, locked_until = CASE WHEN n.failures + 1 >= %(free)s
    THEN now() + make_interval(secs => least(%(first)s * 2.0 ^ least(n.failures + 1 - %(free)s, 10), %(longest)s))
    ELSE n.locked_until END"""
"""The same for names of users and of nobody: a difference would tell which is which."""
_FAILED: Final = f"UPDATE console_user n SET {_ONE_MORE} WHERE n.user_id = %(user)s"  # noqa: S608 - our own words
_FAILED_OF_NOBODY: Final = f"""
WITH old AS (
    DELETE FROM console_unknown_name
    WHERE failed_at < (SELECT failed_at FROM console_unknown_name ORDER BY failed_at DESC OFFSET %(most)s LIMIT 1)
)
INSERT INTO console_unknown_name AS n (name_hmac) VALUES (%(name)s) ON CONFLICT (name_hmac) DO UPDATE
SET failed_at = now(), {_ONE_MORE}"""  # noqa: S608 - our own words
_BEGIN: Final = """
WITH old AS (
    DELETE FROM console_session WHERE expires_at < now() OR last_seen_at < now() - make_interval(secs => %(idle)s) OR token_sha256 = %(old)s
        OR token_sha256 IN (SELECT token_sha256 FROM console_session WHERE user_id = %(user)s ORDER BY last_seen_at DESC OFFSET %(most)s)
), seen AS (
    UPDATE console_user SET failures = 0, locked_until = NULL, last_login_at = now() WHERE user_id = %(user)s
)
INSERT INTO console_session (token_sha256, user_id, expires_at) VALUES (%(token)s, %(user)s, now() + make_interval(secs => %(seconds)s))"""


@dataclass(frozen=True)
class Tenant:
    """A tenant that somebody may see: what it is called, what he may do there, and the login that reads it."""

    tenant: str
    name: str
    role: Role
    login: str


@dataclass(frozen=True)
class Who:
    """Who asks: a user in a session, or an API key (`session` is then empty)."""

    name: str
    display_name: str
    administrator: bool
    tenants: tuple[Tenant, ...]
    expires_at: datetime | None
    session: str
    """The cookie's token."""

    @property
    def role(self) -> Role:
        """admin for those who manage users, else the highest of any tenant."""
        if self.administrator:
            return "admin"
        return max((item.role for item in self.tenants), key=ROLES.index, default="viewer")

    @property
    def csrf_token(self) -> str:
        """What unsafe requests of the session carry in X-CSRF-Token."""
        return csrf_token(self.session)


def csrf_token(session: str) -> str:
    """Follows from the session's token, which no script can read."""
    return hmac.new(session.encode("utf-8", "replace"), b"csrf", hashlib.sha256).hexdigest()


async def identify(request: Request) -> Who:
    """Who sends this request; counts it, and checks X-CSRF-Token where it changes something.

    Raises:
        Problem: nobody that we know, too many requests, a missing token, or the database does not answer.
    """
    state: State = request.app.state.iot
    header = request.headers.get("authorization", "")
    if header:
        scheme, _, secret = header.partition(" ")
        if scheme.lower() != "bearer" or not secret.strip().startswith(PREFIX):
            raise Problem("not-logged-in", "Authorization must be Bearer and an API key of this platform")
        _count(state, digest(secret.strip()))
        who = await _by_key(state, secret.strip())
        if request.method not in ("GET", "HEAD"):
            raise Problem("not-allowed", "an API key only reads")
        return who
    token = request.cookies.get(COOKIE, "")
    if not token:
        raise Problem("not-logged-in")
    _count(state, digest(token))
    who = await _by_session(state, token)
    if request.method not in ("GET", "HEAD") and not hmac.compare_digest(
        request.headers.get(CSRF_HEADER, "").encode("utf-8", "replace"), who.csrf_token.encode()
    ):
        raise Problem("wrong-csrf-token")
    return who


def _count(state: "State", who: bytes) -> None:
    if wait := state.requests.take(who):
        raise Problem("too-many-requests", headers={"Retry-After": str(int(wait) + 1)})


async def _by_session(state: "State", token: str) -> Who:
    parameters = {"token": digest(token), "idle": state.settings.console_session_idle_minutes * 60}
    async with state.console() as connection:
        row = await (await connection.execute(_SESSION, parameters)).fetchone()
        if row is None:
            raise Problem("not-logged-in", "the session has ended: log in again")
        if row[5]:
            await connection.execute("UPDATE console_session SET last_seen_at = now() WHERE token_sha256 = %(token)s", parameters)
    return Who(row[1], row[2], row[3], tuple(Tenant(*item) for item in row[6]), row[4], token)


async def _by_key(state: "State", secret: str) -> Who:
    parameters = {"token": digest(secret)}
    async with state.console() as connection:
        row = await (await connection.execute(_KEY, parameters)).fetchone()
        if row is None:
            raise Problem("not-logged-in", "the API key is unknown, or has ended")
        if row[5]:
            await connection.execute("UPDATE api_key SET last_used_at = now() WHERE key_sha256 = %(token)s", parameters)
    return Who(f"key {row[1]}", row[1], False, (Tenant(row[2], row[3], "viewer", row[4]),), None, "")


async def log_in(request: Request, name: str, password: str) -> tuple[str, int]:
    """Begin a session: its token, and for how many seconds it lasts at most.

    Raises:
        Problem: wrong, or locked. The same, in the same time, whether there is such a user or not.
    """
    state: State = request.app.state.iot
    address = request.client.host if request.client else ""
    if wait := state.logins.take(address):
        raise Problem("too-many-requests", headers={"Retry-After": str(int(wait) + 1)})
    if len(state.logging_in) >= MOST_LOGINS:
        raise Problem("too-many-requests", "too many are logging in at once", headers={"Retry-After": "5"})
    asker = object()
    state.logging_in.add(asker)
    try:
        return await _log_in(request, name, password)
    finally:
        state.logging_in.discard(asker)


async def _log_in(request: Request, name: str, password: str) -> tuple[str, int]:
    state: State = request.app.state.iot
    async with state.hashing:  # also what is looked up: of many at once, each sees the failures of those before it
        user, stored, locked = await _look_up(state, name)
        if locked > 0:
            state.measures.logins.labels("locked").inc()
            raise Problem("locked", "too many wrong passwords: try again later", headers={"Retry-After": str(int(locked) + 1)})
        right = await asyncio.to_thread(passwords.matches, password, stored)
        if not right or user is None:
            await _failed(state, name, user)
            state.measures.logins.labels("wrong").inc()
            raise Problem("wrong-password")
        renewed = await asyncio.to_thread(passwords.hashed, password) if stored and passwords.outdated(stored) else None
    token = await begin(state, user, request.cookies.get(COOKIE, ""), renewed)
    state.measures.logins.labels("ok").inc()
    return token, int(state.settings.console_session_hours * 3600)


async def begin(state: "State", user: int, old: str = "", renewed: str | None = None) -> str:
    """A session of the user, who is known to be it; the one that his browser had before ends. Returns the cookie's token."""
    token = secrets.token_urlsafe(32)
    parameters: dict[str, Any] = {
        "user": user,
        "token": digest(token),
        "old": digest(old),
        "most": MOST_SESSIONS - 1,
        "idle": state.settings.console_session_idle_minutes * 60,
        "seconds": state.settings.console_session_hours * 3600,
        "hash": renewed,
    }
    async with state.console() as connection:
        await connection.execute(_BEGIN, parameters)
        if renewed is not None:
            await connection.execute("UPDATE console_user SET password_hash = %(hash)s WHERE user_id = %(user)s", parameters)
    return token


async def log_out(state: "State", token: str) -> None:
    """End the session."""
    async with state.console() as connection:
        await connection.execute("DELETE FROM console_session WHERE token_sha256 = %s", (digest(token),))


async def _look_up(state: "State", name: str) -> tuple[int | None, str | None, float]:
    """User, hash and for how many seconds the name is locked still."""
    async with state.console() as connection:
        row = await (await connection.execute(_LOGIN, {"name": name})).fetchone()
        if row:
            return row[0], row[1], row[2] or 0.0
        row = await (await connection.execute(_LOGIN_OF_NOBODY, {"name": _name_hmac(state, name)})).fetchone()
    return None, None, (row[0] or 0.0) if row else 0.0


def _name_hmac(state: "State", name: str) -> bytes:
    return hmac.digest(state.key, b"console-name\x00" + name.encode("utf-8", "replace"), "sha256")


async def _failed(state: "State", name: str, user: int | None) -> None:
    parameters: dict[str, Any] = {"free": FREE_FAILURES, "first": FIRST_LOCK_SECONDS, "longest": LONGEST_LOCK_SECONDS}
    async with state.console() as connection:
        if user is None:
            parameters |= {"name": _name_hmac(state, name), "most": MOST_REMEMBERED}
            await connection.execute(_FAILED_OF_NOBODY, parameters)
        else:
            await connection.execute(_FAILED, parameters | {"user": user})
