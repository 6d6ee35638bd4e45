"""Every plug-in, setting and command appears in the docs as it is in the code."""

import ast
import os
import pkgutil
import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import pytest
from typer.main import get_command

import service
import shortlist_client
import worker.jobs
from service.cli import app
from service.formats import formats
from service.labeling.batches import Reason
from service.store import outbox
from shortlist_client import Annotating, Item, Project, ProjectInfo, Shortlist, ShortlistError
from worker.engines import engines
from worker.modalities import modalities

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


@pytest.fixture(scope="module")
def architecture() -> str:
    return (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def test_the_architecture_names_every_room(architecture: str) -> None:
    rooms = {
        f"{program.__name__}/{found.name}/"
        for program in (service, worker)
        for found in pkgutil.iter_modules(program.__path__)
        if found.ispkg
    }
    assert {"service/store/", "worker/jobs/"} <= rooms
    assert {room for room in rooms if f"`{room}`" not in architecture} == set()


def test_the_architecture_names_every_modality_and_engine(architecture: str) -> None:
    names = {*modalities(), *engines()}
    assert {"image", "local"} <= names
    assert {name for name in names if f"`{name}`" not in architecture} == set()


def test_the_architecture_has_a_row_for_every_job_kind(architecture: str) -> None:
    modules = (found.name for found in pkgutil.iter_modules(worker.jobs.__path__))
    kinds = {name for name in modules if hasattr(import_module(f"worker.jobs.{name}"), "run")}
    assert "rank" in kinds
    assert {kind for kind in kinds if f"\n| `{kind}` |" not in architecture} == set()


def test_docstrings_begin_with_a_subject() -> None:
    vague = []
    for file in (
        file
        for folder in ("service", "worker", "benchmarks", "shortlist_client", "examples")
        for file in (ROOT / folder).rglob("*.py")
    ):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                docstring = ast.get_docstring(node) or ""
                if NO_SUBJECT.match(docstring):
                    vague.append(f"{file.relative_to(ROOT)}: {docstring.splitlines()[0]}")
    assert vague == []


def test_the_page_of_formats_has_a_row_for_each() -> None:
    page = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    rows = {
        name for line in page.splitlines() if line.startswith("| `") for name in line.split("|")[1].split("`")
    }
    assert {name for name in rows if name.strip(" ,")} - {"format"} == set(formats())


def _blocks(page: Path, language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )


@pytest.mark.parametrize("page", ["client.md", "formats.md", "monitoring.md"])
def test_commands_on_the_page_are_taken(page: str) -> None:
    lines = [line for block in _blocks(ROOT / "docs" / page, "sh") for line in block.splitlines()]
    commands = [shlex.split(line.partition(" > ")[0])[1:] for line in lines if line.startswith("shortlist ")]
    assert commands or page == "client.md"
    for arguments in commands:
        command: Any = get_command(app)
        while hasattr(command, "commands"):
            name, *arguments = arguments
            command = command.commands[name]
        command.make_context(name, arguments)  # raises for what it does not know


def test_what_the_page_calls_is_there() -> None:
    page = ROOT / "docs" / "client.md"
    text = page.read_text(encoding="utf-8")
    known = {"client": Shortlist, "project": Project, "item": Item, "items": Annotating}
    called = {(name, method) for name, method in re.findall(r"\b(\w+)\.(\w+)", text) if name in known}
    assert len(called) > 20
    fields = {"project": ProjectInfo.model_fields.keys()}
    missing = {
        f"{name}.{method}"
        for name, method in called
        if not hasattr(known[name], method) and method not in fields.get(name, ())
    }
    assert missing == set()
    for error in re.findall(
        r"`([A-Z]\w+(?:Error|Reached|Failed|Out|Requests|Found|Conflict|Invalid))`", text
    ):
        assert issubclass(getattr(shortlist_client, error), ShortlistError)
    for block in _blocks(page, "python"):
        compile(block, str(page), "exec")


@pytest.mark.parametrize(
    "page", sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]), ids=lambda page: page.name
)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    places = [place.partition("#")[0] for place in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in place]
    assert {place for place in places if place and not (page.parent / place).exists()} == set()


def test_the_site_builds_and_no_link_or_anchor_is_dead(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", tmp_path],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    assert {"index.html", "api.html", "benchmarks", "decisions"} <= {path.name for path in tmp_path.iterdir()}
    for page in tmp_path.rglob("*.html"):
        assert not re.search(r'<(?:script|link|img)[^>]+(?:src|href)="https?://', page.read_text()), page.name
