"""The built front end: files of iot_platform/api/static, and index.html for its routes."""

from pathlib import Path
from typing import Final

from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from iot_platform.api.problems import Problem

STATIC: Final = Path(__file__).resolve().parent / "static"
API: Final = ("/api/", "/healthz", "/readyz", "/metrics")
_NOT_BUILT: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>IoT console</title></head>
<body><h1>The console was not built</h1>
<p>The read API works: <a href="/api/v1/openapi.json">/api/v1/openapi.json</a>. The pages come from the folder <code>console/</code>:
run <code>make console</code> (it needs Node.js 20) in the checkout, or install a wheel or image, which have them. Then load this page
again.</p>
<h1 lang="zh-CN">控制台页面尚未构建</h1>
<p lang="zh-CN">读取 API 可用。页面来自 <code>console/</code> 目录：在源码目录中运行 <code>make console</code>（需要 Node.js 20），
或安装已包含页面的 wheel 或镜像，然后重新加载本页。</p></body></html>
"""


class FrontEnd:
    """Serves the API's paths by `api`, everything else from the folder. Files whose names hold a hash are kept for a year."""

    def __init__(self, api: ASGIApp, folder: Path = STATIC) -> None:
        self._api, self._folder = api, folder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] != "http" or path == "/api" or any(path == item.rstrip("/") or path.startswith(item) for item in API):
            return await self._api(scope, receive, send)
        if scope["method"] not in ("GET", "HEAD"):
            return await Problem("method-not-allowed", headers={"Allow": "GET, HEAD"}).response()(scope, receive, send)
        return await self._answer(path)(scope, receive, send)

    def _answer(self, path: str) -> Response:
        found = self._file(path)
        if found is not None:
            lasting = "public, max-age=31536000, immutable" if path.startswith("/assets/") else "no-cache"
            return FileResponse(found, headers={"Cache-Control": lasting})
        if "." in path.rpartition("/")[2]:  # a file, and no route of the page
            return Problem("not-found").response()
        index = self._folder / "index.html"
        if not index.is_file():
            return HTMLResponse(_NOT_BUILT, 503, {"Cache-Control": "no-store"})
        return FileResponse(index, headers={"Cache-Control": "no-cache"})

    def _file(self, path: str) -> Path | None:
        """The file of this path, never one outside the folder."""
        if "\x00" in path:
            return None
        try:
            wanted = (self._folder / path.lstrip("/")).resolve()
            return wanted if wanted.is_relative_to(self._folder) and wanted.is_file() else None
        except OSError:  # a name that is too long
            return None
