"""Every plug-in, setting and command appears in the docs as it is in the code."""

import subprocess
import sys
from pathlib import Path
from typing import get_args

from service.cli import app
from service.labeling.batches import Reason
from service.store import outbox

ROOT = Path(__file__).parents[1]


def test_the_generated_pages_are_up_to_date() -> None:
    checked = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr


def test_readme_names_every_command() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = {
        command.name or command.callback.__name__ for command in app.registered_commands if command.callback
    }
    assert commands
    assert {name for name in commands if f"shortlist {name}" not in readme} == set()


def test_every_reason_of_an_empty_batch_is_explained() -> None:
    page = (ROOT / "docs" / "labeling.md").read_text(encoding="utf-8")
    assert {reason for reason in get_args(Reason) if f"`{reason}`" not in page} == set()


def test_every_event_of_webhooks_is_explained() -> None:
    page = (ROOT / "docs" / "events.md").read_text(encoding="utf-8")
    assert {event for event in outbox.EVENTS if f"`{event}`" not in page} == set()
