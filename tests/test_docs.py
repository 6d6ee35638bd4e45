"""Every plug-in, setting and command appears in the docs as it is in the code."""

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

from service.cli import app
from service.labeling.batches import Reason
from service.store import outbox

ROOT = Path(__file__).parents[1]
# The first word, after shapes such as `(n, d) -> (n,)`.
NO_SUBJECT = re.compile(
    r"(\([^)]*\)\s*|\W)*(what|which|who|how|of|those|where|whether|that)\b", re.IGNORECASE
)


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


def test_docstrings_begin_with_a_subject() -> None:
    vague = []
    for file in (
        file for folder in ("service", "worker", "benchmarks") for file in (ROOT / folder).rglob("*.py")
    ):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                docstring = ast.get_docstring(node) or ""
                if NO_SUBJECT.match(docstring):
                    vague.append(f"{file.relative_to(ROOT)}: {docstring.splitlines()[0]}")
    assert vague == []
