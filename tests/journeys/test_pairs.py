"""Broken pairs stop nothing; those that do not belong together are the top of the losses."""

import csv
from pathlib import Path

import numpy as np

from tests.journeys.captions import caption, picture, write_pairs
from tests.journeys.site import Project, Site


def test_broken_pairs_are_told_and_stop_nothing(site: Site) -> None:
    folder = site.images / "broken-pairs"
    table = write_pairs(folder, 6)
    (folder / "cut.png").write_bytes(picture("red", 1)[:100])
    (folder / "page.png").write_bytes(b"<!DOCTYPE html><html><body>Sign in</body></html>")
    (folder / "text.png").write_bytes(b"Ceci n'est pas une pipe.")
    bad = {
        "no image": ("", "a text", "its image is missing"),
        "no text": ("0.png", "", "its text is missing"),
        "white space": ("0.png", "  ", "its text is missing"),
        "gone": ("gone.png", "a text", "no such file"),
        "cut": ("cut.png", "a text", "its image: broken or truncated"),
        "page": ("page.png", "a text", "its image: it is a saved web page"),
        "text": ("text.png", "a text", "its image: not an image"),
        "document": ("1.png", "%PDF-1.4 /JavaScript", "its text: it is not text but a document"),
        "folder": (".", "a text", "it is a folder"),
        "outside": ("/etc/hostname", "a text", "SHORTLIST_SOURCE_ROOTS"),
    }
    with table.open("a", newline="") as file:
        csv.writer(file).writerows([key, place, text] for key, (place, text, _) in bad.items())

    project = Project(site, "broken pairs", ("red", "green"), modality="pair")
    counted = project.add(table)

    assert (counted["added"], counted["quarantined"]) == (6, len(bad))
    reasons = {item["key"]: item["quarantine_reason"] for item in project.items(state="quarantined")}
    assert set(reasons) == set(bad)
    for key, (_, _, words) in bad.items():
        assert words in reasons[key], reasons[key]
    assert project.next_batch("ann", 3)["items"]


def test_pairs_that_do_not_belong_together_have_the_highest_losses(site: Site) -> None:
    folder = site.images / "noisy-pairs"
    folder.mkdir()
    table: Path = folder / "pairs.csv"
    colours = np.random.default_rng(0).permutation(["red", "green"] * 75).tolist()
    wrong = set(range(0, 150, 15))
    with table.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["key", "image", "text"])
        for number, colour in enumerate(colours):
            (folder / f"{number}.png").write_bytes(picture(colour, number))
            said = {"red": "green", "green": "red"}[colour] if number in wrong else colour
            rows.writerow([str(number), f"{number}.png", f"it is {said}"])
    project = Project(site, "noisy pairs", ("red", "green"), modality="pair", pretext_epochs=12)
    project.add(table)
    project.pretrain()

    losses = {int(item["key"]): item["pretext_loss"] for item in project.items(split="pool")}
    top = sorted(losses, key=lambda number: -losses[number])[: len(wrong)]
    assert len(wrong & set(top)) >= 8


def test_questions_and_answers_that_came_with_the_call(site: Site) -> None:
    """Of pairs of two texts all is as of others: ranked at once, trained on, scored, labeled."""
    project = Project(site, "questions", ("red", "green"), pair_of=["text", "text"], pretext_epochs=2)
    entries = [
        {"key": str(number), "first": f"What is number {number}?", "second": caption(colour, number)}
        for number, colour in enumerate(["red", "green"] * 20)
    ]
    assert site.post(f"{project.at}/items", {"items": entries})["added"] == 40
    project.pretrain()

    assert site.get(project.at)["modality"] == "pair"
    assert all(item["pretext_loss"] > 0 for item in project.items(split="pool"))
    batch = project.next_batch("ann", 4)
    parts = [item["content"]["parts"] for item in batch["items"]]
    assert all([part["kind"] for part in both] == ["text", "text"] for both in parts)
    assert all(both[0]["text"].startswith("What is number") for both in parts)
