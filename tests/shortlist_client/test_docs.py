"""The code on docs/client.md and in the README, run as it stands; only address and key are others."""

import re
from pathlib import Path

import pytest

from shortlist_client import Shortlist
from tests.served import Served

ROOT = Path(__file__).parents[2]


def blocks(page: str, holding: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [block for block in found if holding in block]


def test_the_loops_label_what_they_say(
    client: Shortlist, served: Served, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHORTLIST_URL", served.url)
    monkeypatch.setenv("SHORTLIST_KEY", key)
    project = client.create_project("pets", ["cat", "dog"], modality="text")
    names = {"client": client, "project": project, "__name__": "page"}
    loops = blocks("docs/client.md", "annotate(") + blocks("README.md", "annotate(")
    assert len(loops) == 4
    for number, loop in enumerate(loops):
        project.add_items({"key": f"{number}.{item}", "text": f"text {number} {item}"} for item in range(12))
        code = re.sub(r'Shortlist\("http.*?\)', "Shortlist()", loop)
        exec(compile(code, "page", "exec"), dict(names))
        labels = [label for label in project.labels() if label["key"].startswith(f"{number}.")]
        assert len(labels) == 12
        said = {(label["class"], label["skip"]) for label in labels}
        assert said == ({(None, "unsure")} if "unsure" in loop else {("cat", None)})
        if "unsure" in loop:
            project.label([{"item": label["item"], "class": "dog", "annotator": "ann"} for label in labels])
