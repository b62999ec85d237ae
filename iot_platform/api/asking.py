"""Puts what a user asks for into the queue of writes, as iot_console; the platform carries it out."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from fastapi import Request
from psycopg.types.json import Jsonb
from pydantic import BaseModel
from starlette.responses import Response

from iot_platform.actions import ActionError, parse_request
from iot_platform.api.access import Access
from iot_platform.api.problems import Problem, wrong
from iot_platform.api.state import State

MOST_WAITING: Final = 100
"""Of one tenant."""
_ASK: Final = """
INSERT INTO console_action (tenant_id, kind, arguments, requested_by)
SELECT %(tenant)s, %(kind)s, %(arguments)s, %(who)s
WHERE (SELECT count(*) FROM console_action WHERE tenant_id = %(tenant)s AND state IN ('queued', 'running')) < %(most)s
RETURNING action_id"""


class Accepted(BaseModel):
    """A change that the platform will make; GET /actions/{action_id} tells of it."""

    action_id: str


async def ask(request: Request, access: Access, kind: str, arguments: Mapping[str, Any], prefix: str = "") -> Response:
    """202 with the id of the action. `prefix`: of the arguments' names in the body.

    Raises:
        Problem: the arguments are wrong, or too much waits already.
    """
    try:
        checked = parse_request(access.tenant, kind, arguments)
    except ActionError as error:
        raise wrong(f"{prefix}{error.field}".rstrip("."), str(error)) from error
    state: State = request.app.state.iot
    values = {"tenant": access.tenant, "kind": kind, "who": access.who, "most": MOST_WAITING}
    # Only what is said: the release before, which may carry it out, refuses arguments that it does not know.
    values["arguments"] = Jsonb(checked.model_dump(mode="json", exclude_defaults=True))
    async with state.console() as connection:
        row = await (await connection.execute(_ASK, values)).fetchone()
    if row is None:
        raise Problem("conflict", f"{MOST_WAITING} writes of this tenant wait already; does Dagster run (sensor console_actions)?")
    body = msgspec.json.encode({"action_id": str(row[0])})
    return Response(body, 202, {"Cache-Control": "no-store"}, "application/json")
