"""Decoded items on the disk: what was written is read, what came from elsewhere is not, and memory stays flat."""

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from worker.arrays import Ints
from worker.modalities.image import Image
from worker.pool.decoded_cache import DecodedCache, Origins, bytes_below, origin

SIDE = 16


def origins_of(ids: Ints, moved: str = "") -> Origins:
    return np.array([origin(f"{moved}/pool/{number}.png") for number in ids.tolist()], np.uint64)


def pixels_of(ids: Ints, side: int = SIDE) -> torch.Tensor:
    """(n, 3, s, s) that tell the item."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (3, side, side), generator=generator)
    return ((noise + torch.from_numpy(ids).view(-1, 1, 1, 1)) % 251).to(torch.uint8)


@pytest.fixture
def cache(tmp_path: Path) -> DecodedCache:
    return DecodedCache(tmp_path / "decoded" / str(SIDE), Image(image_size=SIDE))


def write(cache: DecodedCache, ids: Ints, moved: str = "") -> None:
    for number, rows in cache.by_range(ids):
        part = ids[rows]
        cache.write(number, part, origins_of(part, moved), pixels_of(part, cache.modality.item_shape[-1]))


def test_what_was_written_is_read_in_any_order(cache: DecodedCache) -> None:
    size = cache.range_size
    written = np.array([1, 5, size - 1, size, 3 * size + 7])
    write(cache, written)
    asked = np.array([3 * size + 7, 2, 5, size, 5, size - 1])

    found, pixels = cache.read(asked, origins_of(asked))

    assert found.tolist() == [True, False, True, True, True, True]
    assert torch.equal(pixels, pixels_of(asked[found]))


def test_what_comes_later_is_added(cache: DecodedCache) -> None:
    first, later = np.array([3, 4]), np.array([1, 9])
    write(cache, first)
    write(cache, later)
    ids = np.array([1, 3, 4, 9])

    found, pixels = cache.read(ids, origins_of(ids))

    assert found.all()
    assert torch.equal(pixels, pixels_of(ids))
    assert len(list(cache.folder.iterdir())) == 1


def test_an_item_that_has_moved_is_not_in_it(cache: DecodedCache) -> None:
    ids = np.array([3, 4])
    write(cache, ids)
    origins = origins_of(ids)
    origins[0] = origin("/elsewhere/3.png")

    assert cache.read(ids, origins)[0].tolist() == [False, True]
    write(cache, ids[:1], moved="/elsewhere")
    assert cache.read(ids, origins_of(ids))[0].tolist() == [False, True]


def test_a_file_that_is_replaced_while_it_is_read_gives_what_it_had(
    cache: DecodedCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = np.array([3, 4])
    write(cache, ids)
    memmap = np.memmap

    def map_late(*args: Any, **options: Any) -> np.memmap[Any, Any]:
        monkeypatch.undo()
        shutil.rmtree(cache.folder)
        write(cache, np.array([9]))
        return memmap(*args, **options)

    monkeypatch.setattr(np, "memmap", map_late)
    found, pixels = cache.read(ids, origins_of(ids))

    assert torch.equal(pixels, pixels_of(ids[found]))
    assert found.all()


def test_nothing_is_left_of_a_file_for_which_there_is_no_room(
    cache: DecodedCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(cache, np.array([3]))

    def full(path: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(OSError, match="No space"):
        write(cache, np.array([4]))
    monkeypatch.undo()

    assert [path.suffix for path in cache.folder.iterdir()] == [".items"]
    ids = np.array([3, 4])
    assert cache.read(ids, origins_of(ids))[0].tolist() == [True, False]


def test_holes_take_no_room(cache: DecodedCache) -> None:
    write(cache, np.array([cache.range_size - 1]))

    assert bytes_below(cache.folder) < 2**20 < next(cache.folder.iterdir()).stat().st_size


def test_reading_it_all_leaves_memory_as_it_was(tmp_path: Path) -> None:
    """Of a cache of 96 MB, batch after batch in random order, this process keeps less than a sixth."""
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("Only Linux says how much is resident.")

    def resident() -> int:
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return 1024 * int(lines["VmRSS"].split()[0])

    cache = DecodedCache(tmp_path / "128", Image(image_size=128))
    ids = np.arange(2_048)
    for start in range(0, len(ids), 512):
        write(cache, ids[start : start + 512])
    batches = [np.sort(rows) for rows in np.split(np.random.default_rng(0).permutation(ids), 64)]
    cache.read(batches[0], origins_of(batches[0]))
    before, total, most = resident(), 0, 0

    for rows in batches:
        found, pixels = cache.read(rows, origins_of(rows))
        total += pixels.numel() if found.all() else 0
        most = max(most, resident())

    assert total == 96 * 2**20 == bytes_below(cache.folder) // 2**20 * 2**20
    assert most - before < total / 6
