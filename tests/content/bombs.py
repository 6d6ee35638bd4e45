"""Files that would take more memory than they look, and how much was taken."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest


def zip_bomb() -> bytes:
    """64 MB of nothing in 64 kB."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("recording.wav", bytes(64_000_000))
    return buffer.getvalue()


def most_memory(run: Callable[[], object]) -> int:
    """Bytes by which this process was larger than before while that ran, at most: also those of C libraries, of which
    `tracemalloc` knows nothing. Linux only, as nothing else forgets the largest size of before.
    """
    peaks = Path("/proc/self/clear_refs")
    try:
        peaks.write_text("5")
    except OSError:
        pytest.skip("The largest size of a process cannot be reset here.")
    before = _kilobytes("VmRSS")
    run()
    return 1024 * max(_kilobytes("VmHWM") - before, 0)


def _kilobytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))
