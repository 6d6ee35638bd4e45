"""Bodies of requests as files, however large."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import Request
from fastapi.concurrency import run_in_threadpool

from service.errors import ArtifactNotStored
from service.settings import Settings


@asynccontextmanager
async def received(request: Request, settings: Settings, name: str) -> AsyncIterator[Path]:
    """The body, until the end of the block. Raises `ArtifactNotStored`."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".upload-", dir=settings.data_dir) as folder:
        upload = Path(folder) / name
        try:
            with upload.open("wb") as file:
                async for piece in request.stream():
                    await run_in_threadpool(file.write, piece)
        except OSError as error:
            raise ArtifactNotStored(name=name, reason=str(error.strerror).lower()) from error
        yield upload
