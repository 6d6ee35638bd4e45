"""The examples run as people run them, against a service."""

import ast
import base64
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import sqlalchemy as sa
from PIL import Image, ImageStat

from examples.label_by_program import label, vision_language_model
from service.access import keys
from service.settings import Settings
from service.store.session import write_session
from service.store.tables import Project as ProjectRow
from service.store.tables import utc_now
from shortlist_client import Project, Shortlist
from tests import factories
from tests.served import Served

EXAMPLES = Path(__file__).parents[2] / "examples"
COLOURS = {"red": (220, 30, 40), "green": (20, 200, 60)}


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


@pytest.fixture
def project(
    settings: Settings, engine: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Project]:
    """Six pictures, red and green in turn; address and key stand in the environment."""
    with write_session(engine) as session:
        _, token = keys.create(session, keys.server_secret(settings), name="admin", role="admin")
    served = Served(settings)
    served.start()
    try:
        monkeypatch.setenv("SHORTLIST_URL", served.url)
        monkeypatch.setenv("SHORTLIST_KEY", token)
        with Shortlist() as client:
            project = client.create_project("colours", list(COLOURS), modality="image")
            for number in range(6):
                colour = list(COLOURS.values())[number % 2]
                Image.new("RGB", (20, 20), colour).save(tmp_path / f"{number}.png")
            project.add_items(
                {"key": f"{number}.png", "uri": str(tmp_path / f"{number}.png")} for number in range(6)
            )
            yield project
    finally:
        served.stop()


def truth(key: str) -> str:
    return list(COLOURS)[int(key.removesuffix(".png")) % 2]


def run(name: str, *arguments: str, typed: str = "") -> str:
    found = subprocess.run(
        [sys.executable, EXAMPLES / name, *arguments],
        input=typed,
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": str(EXAMPLES.parent), "PYTHONIOENCODING": "utf-8"},
        check=False,
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


def test_the_terminal(project: Project) -> None:
    """Nobody looks at the pictures; what is typed says which item gets what."""
    shown = run("label_in_terminal.py", "ann", typed="1\n7\n2\ns\n1\n1\n2\n")
    labels = [label["class"] or label["skip"] for label in project.labels()]
    assert labels == ["red", "green", "unsure", "red", "red", "green"]
    assert "\x1b[38;2;220;30;40;48;2;220;30;40m▀" in shown
    assert "\x1b[38;2;20;200;60;48;2;20;200;60m▀" in shown


def test_the_terminal_annotator_is_short() -> None:
    tree = ast.parse((EXAMPLES / "label_in_terminal.py").read_text(encoding="utf-8"))
    lines = {line for node in ast.walk(tree.body[-1]) if hasattr(node, "lineno") for line in [node.lineno]}
    assert isinstance(tree.body[-1], ast.With)
    assert len(lines) <= 15


def by_colour(picture: bytes, classes: Sequence[str]) -> str | None:
    """It looks at the pixels."""
    red, green, _ = ImageStat.Stat(Image.open(io.BytesIO(picture)).convert("RGB")).mean
    return classes[0] if red > green else classes[1]


def test_a_program_that_looks_at_the_pixels(project: Project) -> None:
    assert label(project, by_colour, "by colour", limit=4) == {"accepted": 4}
    assert label(project, lambda picture, classes: None, "knows nothing") == {"skipped": 2}
    told = [each for each in project.labels() if each["annotator"] == "by colour"]
    assert len(told) == 4
    assert all(each["class"] == truth(each["key"]) for each in told)


def test_a_vision_language_model(project: Project) -> None:
    """The requests and answers of chat completions; the model behind them looks at the pixels."""
    said = iter(["Red.", "**GREEN**", "unsure", "I see a blue car", '"red"', "green"])

    def model(request: httpx.Request) -> httpx.Response:
        body: dict[str, Any] = json.loads(request.content)
        text, picture = body["messages"][0]["content"]
        assert (body["model"], request.headers["Authorization"]) == ("eyes", "Bearer its-key")
        assert "red, green" in text["text"]
        kind, _, data = picture["image_url"]["url"].partition(";base64,")
        assert kind.startswith("data:image/")
        assert by_colour(base64.b64decode(data), ["red", "green"]) in ("red", "green")
        return httpx.Response(200, json={"choices": [{"message": {"content": next(said)}}]})

    http = httpx.Client(
        base_url="http://models/v1",
        headers={"Authorization": "Bearer its-key"},
        transport=httpx.MockTransport(model),
    )
    outcomes = label(project, vision_language_model(http, "eyes"), "eyes")
    assert outcomes == {"accepted": 4, "skipped": 2}
    assert [each["class"] for each in project.labels()] == ["red", "green", None, None, "red", "green"]


def test_the_curve(project: Project, engine: sa.Engine) -> None:
    assert "nothing to show" in run("learning_curve.py")
    with write_session(engine) as session:
        row = session.scalars(sa.select(ProjectRow)).one()
        score_run = factories.make_score_run(session, project=row)
        for number, accuracy in ((2, 0.5), (3, 0.875)):
            metrics = {"accuracy": accuracy, "accuracy_low": accuracy - 0.1, "accuracy_high": accuracy + 0.1}
            head = factories.make_head(
                session, project=row, score_run=score_run, metrics=metrics, labels_used=10 * number
            )
            factories.make_round(
                session,
                project=row,
                number=number,
                labels_before=0,
                labels=10,
                last_label_id=1,
                head_id=head.id,
                closed_at=utc_now(),
                measured_at=utc_now(),
            )
    heading, first, second = run("learning_curve.py", "colours").splitlines()
    assert heading == "colours: 0 labels, 2 measured rounds"
    assert first.split()[0] == "20"
    assert first.endswith(" 50.0 %")
    assert second.endswith(" 87.5 %")
    assert second.count("━") > first.count("━") >= 24
    assert first.count("┄") == 5


def test_the_notebook(project: Project) -> None:
    """Its cells are run by a kernel, and its buttons clicked."""
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed (pip install -e '.[dev]')")
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed (pip install -e '.[dev]')")
    pytest.importorskip("ipywidgets", reason="ipywidgets is not installed (pip install -e '.[dev]')")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed (pip install -e '.[dev]')")
    notebook = nbformat.read(EXAMPLES / "label_in_notebook.ipynb", as_version=4)
    nbformat.validate(notebook)
    click = (
        "red, green, unsure = buttons.children\n"
        "seen = []\n"
        "for button in (red, green, unsure):\n"
        "    seen.append((told.value, len(picture.value) > 50))\n"
        "    button.click()\n"
        "assert all(shown for _, shown in seen)\n"
        "print(*[key for key, _ in seen])"
    )
    notebook.cells.insert(3, nbformat.v4.new_code_cell(click))
    environment = {"PYTHONPATH": str(EXAMPLES.parent), "JUPYTER_PLATFORM_DIRS": "1"}
    client = nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3")
    client.execute(env=os.environ | environment)
    keys_seen = notebook.cells[3].outputs[0]["text"].split()
    assert notebook.cells[-1].outputs[0]["data"]["text/plain"] == "2"
    assert [(each["key"], each["class"]) for each in project.labels()] == [
        (key, name) for key, name in zip(keys_seen, ("red", "green", None), strict=True)
    ]
    assert project.metrics().items["available"] == 4
