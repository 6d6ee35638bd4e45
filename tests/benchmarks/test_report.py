import json
import platform
from pathlib import Path

import pytest

from benchmarks.report import machine, write_report


def test_figures_go_to_a_flat_object_and_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_report("speed", {"items_per_s": 1234.5678, "items": 7}, "make bench-speed", tmp_path)

    written = json.loads(path.read_text())
    assert path == tmp_path / "speed.json"
    assert written.keys() == {"items_per_s", "items", "command", "machine", "date"}
    assert (written["items_per_s"], written["command"]) == (1234.5678, "make bench-speed")
    assert all(not isinstance(value, dict | list) for value in written.values())
    printed = capsys.readouterr().out
    assert "items_per_s" in printed
    assert "1235" in printed


def test_the_machine_is_described_and_not_named() -> None:
    assert " cores, " in machine()
    assert platform.node() not in machine()
