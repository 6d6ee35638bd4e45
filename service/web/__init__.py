"""The dashboard: one static page that reads the same HTTP API as any other client.

The key comes after `#` in the address, which browsers never send to a server, and stays in the tab's session
storage.
"""

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

_STATIC = Path(__file__).parent / "static"

router = APIRouter(include_in_schema=False)
static_files = StaticFiles(directory=_STATIC)  # mounted at /static by service.main


@router.get("/")
def dashboard() -> FileResponse:
    return FileResponse(_STATIC / "index.html")
