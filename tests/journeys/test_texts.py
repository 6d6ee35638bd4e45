"""The whole way of a text: from a table to a ranking in seconds, a pretext model, a class and the next ranking."""

import csv
from pathlib import Path

import httpx2 as httpx
import numpy as np

from tests.journeys.site import Json, Project, Site, until

SUBJECTS = {
    "sea": ["wave", "tide", "harbour", "sail", "anchor", "gull", "reef", "shore", "salt", "storm"],
    "kitchen": ["bread", "oven", "butter", "knife", "onion", "spoon", "simmer", "flour", "plate", "spice"],
}
FILLER = [
    "the",
    "a",
    "of",
    "and",
    "with",
    "near",
    "over",
    "under",
    "slowly",
    "again",
    "old",
    "new",
    "small",
    "bright",
]


def write_table(path: Path, texts: int) -> Path:
    """Sentences of two subjects; a key tells which."""
    rng = np.random.default_rng(0)
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        table = csv.writer(file)
        table.writerow(("key", "text"))
        for number in range(texts):
            subject = list(SUBJECTS)[number % 2]
            words = [*rng.choice(SUBJECTS[subject], 6), *rng.choice(FILLER, 8)]
            table.writerow((f"{subject}-{number}", " ".join(rng.permutation(words))))
    return path


def test_from_a_table_to_the_next_ranking(site: Site) -> None:
    folder = site.images / "texts"
    folder.mkdir()
    project = Project(site, "texts", tuple(SUBJECTS), round_size=20, retrain_min_labels=10, pretext_epochs=2)
    assert project.add(write_table(folder / "texts.csv", 160))["added"] == 160
    described = site.get(project.at)
    assert described["modality"] == "text"
    assert described["pretext_task"]["name"] == "masked_tokens"

    provisional: Json = until(lambda: project.metrics()["ranking"])
    assert "Provisional" in provisional["note"]
    first = project.next_batch("ann", 10)
    selected = [item for item in first["items"] if item["arm"] == "selected"]
    assert selected
    assert {item["why"]["pretext_loss"] for item in selected} == {None}
    assert all(item["content"]["kind"] == "text" and item["image_url"] is None for item in first["items"])
    assert all(len(item["content"]["text"].split()) == 14 for item in first["items"])
    shown = httpx.get(str(site.http.base_url).rstrip("/") + selected[0]["content"]["url"])  # no key
    assert shown.headers["content-type"] == "text/plain; charset=utf-8"
    assert shown.text == selected[0]["content"]["text"]

    project.pretrain()
    scored = project.metrics()
    assert scored["score_run"]["pretext_model"] is not None
    assert scored["ranking"]["note"] is None
    assert all(item["pretext_loss"] > 0 for item in project.items(split="pool"))

    label(project, first)
    label(project, project.next_batch("ann", 10))
    until(lambda: project.rounds()[0]["state"] == "measured")
    until(lambda: project.metrics()["ranking"]["labels_used"] == 20)
    following = project.next_batch("ann", 20)["items"]
    assert any(item["prediction"] is not None for item in following)


def label(project: Project, batch: Json) -> None:
    labels = [
        {"item": item["id"], "class": item["key"].split("-")[0], "annotator": "ann", "batch": batch["batch"]}
        for item in batch["items"]
    ]
    project.site.post(f"{project.at}/labels", {"labels": labels})
