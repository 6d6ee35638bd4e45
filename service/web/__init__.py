"""The page: the dashboard, the gallery and the desk, and `/docs`. Built from `web/`, it reads the same HTTP API as any
other client; nothing it loads comes from another host.
"""

from pathlib import Path
from typing import Any

from fastapi import APIRouter
from fastapi.responses import FileResponse, Response
from fastapi.staticfiles import StaticFiles

_STATIC = Path(__file__).parent / "static"
# Pictures may be shown from memory (`blob:`, preloaded) and from stylesheets (`data:`, Swagger UI's); all else, what is
# played included, comes from here, and nothing that stands in the page itself is run.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "media-src 'self'; "
    "manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
# Names stay from build to build, so browsers ask each time whether they have the newest: a 304.
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Cache-Control": "no-cache",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}

router = APIRouter(include_in_schema=False)


class _PageFiles(StaticFiles):
    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers.update(_HEADERS)
        return response


static_files = _PageFiles(directory=_STATIC)  # mounted at /static by service.main


@router.get("/")
def page() -> FileResponse:
    return FileResponse(_STATIC / "index.html", headers=_HEADERS)


@router.get("/docs")
def docs() -> FileResponse:
    return FileResponse(_STATIC / "docs.html", headers=_HEADERS)
