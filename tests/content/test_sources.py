"""A listing shows what its source holds now."""

from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from service.content.image import CONTENT as IMAGES
from service.content.reader import ItemBytes
from service.content.sources import list_source
from service.settings import Settings

BUCKET = "memory://listing-bucket"


def put(name: str) -> None:
    with fsspec.open(f"{BUCKET}/{name}", "wb") as file:
        file.write(b"x")


@pytest.fixture
def listings_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """As s3fs does: for as long as the process lives; a path takes no folder below it along."""
    kept: dict[str, Any] = {}
    ls = MemoryFileSystem.ls

    def ls_once(self: MemoryFileSystem, path: str, detail: bool = True, **options: Any) -> Any:
        if path not in kept:
            kept[path] = ls(self, path, detail=True, **options)
        return kept[path] if detail else [entry["name"] for entry in kept[path]]

    def forget(self: MemoryFileSystem, path: str | None = None) -> None:
        if path is None:
            kept.clear()
        else:
            kept.pop(path, None)

    monkeypatch.setattr(MemoryFileSystem, "ls", ls_once)
    monkeypatch.setattr(MemoryFileSystem, "invalidate_cache", forget)


@pytest.mark.usefixtures("listings_are_kept")
def test_a_second_listing_of_a_bucket_sees_what_came_meanwhile() -> None:
    def keys() -> list[str]:
        item_bytes = ItemBytes(Settings(source_roots=(BUCKET,)))
        return [candidate.key for candidate in list_source(BUCKET, item_bytes, None, IMAGES)]

    put("a/0.png")
    assert keys() == ["a/0.png"]

    put("a/1.png")
    put("b/2.png")
    assert keys() == ["a/0.png", "a/1.png", "b/2.png"]
