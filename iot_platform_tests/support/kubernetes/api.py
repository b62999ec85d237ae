"""A client of the Kubernetes API: JSON in, JSON out."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

Object = dict[str, Any]
_PATCHES = {"merge": "application/merge-patch+json", "strategic": "application/strategic-merge-patch+json"}


class ApiError(Exception):
    """The API refused; `status` is HTTP's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Api:
    """An API server, as somebody with a token."""

    url: str
    token: str
    ca_file: Path

    def call(self, method: str, path: str, body: Object | None = None, *, patch: str = "", **query: str) -> Object:
        """One request. Raises ApiError."""
        headers = {"Authorization": f"Bearer {self.token}"} | ({"Content-Type": _PATCHES[patch]} if patch else {})
        answer = requests.request(method, self.url + path, json=body, headers=headers, params=query, verify=str(self.ca_file), timeout=30)
        if not answer.ok:
            try:
                message = answer.json()["message"]
            except (ValueError, KeyError):
                message = answer.text
            raise ApiError(answer.status_code, message)
        return dict(answer.json()) if "json" in answer.headers["Content-Type"] else {"text": answer.text}

    def get(self, path: str, **query: str) -> Object:
        """An object, or a list of them."""
        return self.call("GET", path, **query)

    def items(self, path: str, **query: str) -> list[Object]:
        """Of a list."""
        return list(self.get(path, **query)["items"])

    def post(self, path: str, body: Object, **query: str) -> Object:
        """Create."""
        return self.call("POST", path, body, **query)

    def patch(self, path: str, body: Object, kind: str = "merge") -> Object:
        """Change: `merge` replaces lists, `strategic` merges them by their keys."""
        return self.call("PATCH", path, body, patch=kind)

    def delete(self, path: str, **query: str) -> Object:
        """Delete, as gracefully as the object says unless the query says otherwise."""
        return self.call("DELETE", path, **query)
