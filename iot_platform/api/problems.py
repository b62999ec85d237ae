"""Errors as the API tells them: application/problem+json (RFC 9457), one slug for each kind, which the console's page translates."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from pydantic import BaseModel, Field
from starlette.responses import Response

MEDIA_TYPE: Final = "application/problem+json"
KINDS: Final[Mapping[str, tuple[int, str]]] = {
    "invalid-parameters": (422, "A parameter or a field of the body is not as described"),
    "invalid-body": (400, "The body is not JSON"),
    "not-logged-in": (401, "Log in, or send an API key"),
    "wrong-password": (401, "Name or password is wrong"),
    "wrong-csrf-token": (403, "The header X-CSRF-Token is missing or wrong"),
    "not-allowed": (403, "Your role does not allow this"),
    "no-such-tenant": (404, "There is no such tenant, or you may not see it"),
    "not-found": (404, "There is no such thing"),
    "method-not-allowed": (405, "This address does not take this method"),
    "conflict": (409, "It is not in a state for this"),
    "too-large": (413, "The body is too large"),
    "locked": (429, "Too many wrong passwords"),
    "too-many-requests": (429, "Too many requests"),
    "internal-error": (500, "The server failed; its log says why"),
    "not-built": (501, "This is not built yet"),
    "too-slow": (503, "The database took too long"),
    "busy": (503, "Too many are reading at once"),
    "provider-unavailable": (503, "The OpenID provider does not answer"),
    "database-unavailable": (503, "The database does not answer"),
}
"""Slug → status and title."""
_OF_STATUS: Final = {400: "invalid-body", 401: "not-logged-in", 403: "not-allowed", 404: "not-found", 405: "method-not-allowed",
                     413: "too-large", 422: "invalid-parameters", 429: "too-many-requests"}  # fmt: skip


class FieldProblem(BaseModel):
    """What is wrong with one parameter or one field of the body."""

    field: str = Field(description="Name of the parameter, or of the field of the body, with dots between levels.")
    message: str


class ProblemDocument(BaseModel):
    """Body of every answer with a status of 400 or more."""

    type: str = Field(description="/problems/ and the kind's slug.")
    title: str
    status: int
    detail: str
    errors: list[FieldProblem] | None = None


class Problem(Exception):  # noqa: N818  problem+json is what it is
    """An answer other than the one asked for. Retry only 429 and 503, after Retry-After."""

    def __init__(
        self,
        slug: str,
        detail: str = "",
        *,
        errors: list[FieldProblem] | None = None,
        headers: Mapping[str, str] | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(detail or slug)
        self.slug = slug
        self.status, self.title = KINDS[slug]
        self.detail = detail or self.title
        self.errors = errors
        self.headers = dict(headers or {})
        self.extra = extra

    @classmethod
    def of_status(cls, status: int, detail: str, headers: Mapping[str, str] | None = None) -> "Problem":
        """For errors that the framework raises by their status."""
        return cls(_OF_STATUS.get(status, "internal-error"), detail, headers=headers)

    def response(self) -> Response:
        """The answer; never cached."""
        document: dict[str, Any] = {
            "type": f"/problems/{self.slug}", "title": self.title, "status": self.status, "detail": self.detail, **self.extra,
        }  # fmt: skip
        if self.errors is not None:
            document["errors"] = [error.model_dump() for error in self.errors]
        headers = {"Cache-Control": "no-store", **self.headers}
        if self.status == 401:
            headers.setdefault("WWW-Authenticate", 'Bearer realm="iot"')
        return Response(msgspec.json.encode(document), self.status, headers, MEDIA_TYPE)


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For a route's description: these statuses answer with a problem."""
    schema = {"$ref": "#/components/schemas/ProblemDocument"}
    return {
        status: {
            "description": next(title for number, title in KINDS.values() if number == status),
            "content": {MEDIA_TYPE: {"schema": schema}},
        }
        for status in statuses
    }


def wrong(field: str, message: str) -> Problem:
    """One parameter that is wrong in a way that its type cannot say."""
    return Problem("invalid-parameters", f"{field}: {message}", errors=[FieldProblem(field=field, message=message)])
