"""What stands before every route: headers, checks of the request as a whole, and the last net for errors."""

import time
from collections import Counter
from typing import Final
from urllib.parse import parse_qsl

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from iot_platform.api.problems import FieldProblem, Problem
from iot_platform.api.state import State
from iot_platform.logs import get_logger

log = get_logger(__name__)

MOST_BODY_BYTES: Final = 256 * 1024
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS: Final = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class SecurityHeaders:
    """Every answer's; and Strict-Transport-Security where it goes out by https."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if scope["scheme"] == "https":
                    headers.setdefault("Strict-Transport-Security", "max-age=31536000")
            await send(message)

        return await self._app(scope, receive, with_headers)


class Guard:
    """Answers HEAD as GET without its body; refuses a parameter that is given twice (of which the last would count), and large bodies."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        if problem := _of_request(scope):
            return await problem.response()(scope, receive, send)
        received = 0
        begun = False

        async def bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > MOST_BODY_BYTES:
                raise Problem("too-large", f"at most {MOST_BODY_BYTES} bytes")
            return message

        async def sending(message: Message) -> None:
            nonlocal begun
            begun = True
            if scope.get("iot_head") and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        if scope["method"] == "HEAD":
            scope = {**scope, "method": "GET", "iot_head": True}
        try:
            await self._app(scope, bounded, sending)
        except Problem as problem:
            if begun:
                raise
            await problem.response()(scope, receive, send)


def _of_request(scope: Scope) -> Problem | None:
    try:
        names = Counter(name for name, _ in parse_qsl(scope["query_string"].decode("ascii"), keep_blank_values=True, max_num_fields=50))
    except (ValueError, UnicodeDecodeError):
        return Problem("invalid-parameters", "the address has too many parameters, or characters that are not ASCII")
    if twice := [name for name, count in names.items() if count > 1]:
        errors = [FieldProblem(field=name, message="is given more than once") for name in twice]
        return Problem("invalid-parameters", f"given more than once: {', '.join(twice)}", errors=errors)
    length = Headers(scope=scope).get("content-length", "0")
    if length.isdecimal() and int(length) > MOST_BODY_BYTES:
        return Problem("too-large", f"at most {MOST_BODY_BYTES} bytes")
    return None


class Observe:
    """Counts and times requests, and answers what nobody else caught; the log has what it was, the answer does not."""

    def __init__(self, app: ASGIApp, state: State) -> None:
        self._app, self._state = app, state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        status, whole, begun_at = 0, False, time.perf_counter()

        async def watched(message: Message) -> None:
            nonlocal status, whole
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)
            whole = message["type"] == "http.response.body" and not message.get("more_body", False)

        try:
            await self._app(scope, receive, watched)
        except Exception:
            log.exception("request failed", method=scope["method"], path=scope["path"])
            if status and not whole:  # half an answer is out: only a broken connection tells
                raise
            if not status:
                await Problem("internal-error").response()(scope, receive, watched)
        finally:
            self._state.observe(scope, status, time.perf_counter() - begun_at)
