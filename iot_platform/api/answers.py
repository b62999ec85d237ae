"""Answers of reads: JSON of columns, with an ETag by which an unchanged one costs 304."""

import hashlib
from datetime import datetime
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

_ENCODER: Final = msgspec.json.Encoder(decimal_format="number")
CACHE: Final = "private, no-cache"
"""A browser keeps it for this user only, and asks each time whether it still holds."""


def answer(request: Request, document: Any) -> Response:
    """The document as JSON (NaN becomes null, times are ISO 8601 UTC); 304 where the asker has it already."""
    body = _ENCODER.encode(document)
    tag = f'W/"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
    headers = {"ETag": tag, "Cache-Control": CACHE, "Vary": "Cookie, Authorization"}
    if _matches(request.headers.get("if-none-match", ""), tag):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type="application/json")


def milliseconds(moment: datetime | None) -> int | None:
    """Since the epoch, as columns have times."""
    return None if moment is None else int(moment.timestamp() * 1000)


def _matches(wanted: str, tag: str) -> bool:
    return any(item.strip() in ("*", tag) or f"W/{item.strip()}" == tag for item in wanted.split(","))
