"""The committed page is what its committed source was built to. No node is needed to tell."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from fastapi import FastAPI

from service.main import create_app
from service.settings import Settings

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "web" / "build.py"


def check(build: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(build), "--check"]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def test_the_committed_page_is_what_its_source_builds() -> None:
    checked = check(BUILD)
    assert checked.returncode == 0, checked.stderr


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    return create_app(Settings(data_dir=tmp_path))


def test_every_route_that_the_page_calls_is_there(app: FastAPI) -> None:
    """Its types are generated; the addresses stand in templates, which they cannot check."""
    known = [re.sub(r"\{\w+\}", "x", path) for path in app.openapi()["paths"]]
    called = set()
    for file in (ROOT / "web" / "src").rglob("*.ts*"):
        if file.name == "schema.d.ts":  # generated of the routes
            continue
        text = file.read_text(encoding="utf-8").replace("${at}", "/projects/x")
        for address in re.findall(r"[`\"](/(?:projects|jobs|batches|session)[^`\"?#]*)[`\"]", text):
            called.add(re.sub(r"\$\{[^}]*\}", "x", address).rstrip("/"))
    assert "/projects/x/next-batch" in called
    assert {address for address in called if address not in known} == set()


def test_nothing_of_the_page_comes_from_another_host() -> None:
    """Swagger UI's own file names others, for what it can show; the policy of the page keeps it from asking them."""
    built = ROOT / "service" / "web" / "static"
    for file in (built / "index.html", built / "docs.html", built / "index.css", built / "index.js"):
        found = set(re.findall(r"https?://[\w.]+", file.read_text(encoding="utf-8")))
        assert found <= {"http://www.w3.org"}, file  # the namespace of SVG
