"""The whole way of each kind of items but images, which have journeys of their own: from a table to a ranking in
seconds, a pretext model, classes and the next ranking. On the way the worker is killed with -9 in the middle of its
training, and worker and service in the middle of scoring, as when a machine loses its power. Nothing that was stored is
done again.
"""

import io
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import sqlalchemy as sa
from PIL import Image

from service.store.ids import row_number
from service.store.tables import PretextModel, ScoreRun, ScoreShard
from tests.journeys.captions import caption, write_pairs
from tests.journeys.drawings import write_graphs
from tests.journeys.films import write_films
from tests.journeys.sentences import SUBJECTS, write_table
from tests.journeys.site import PATIENCE_S, Json, Project, Site, until
from tests.journeys.sounds import write_recordings
from tests.journeys.test_worker_dies import rows, running

ITEMS, EPOCHS, SHARD_SIZE = 60, 8, 2


@pytest.fixture(scope="module")
def mortal(tmp_path_factory: pytest.TempPathFactory, sqlite_file: Path) -> Iterator[Site]:
    """A site whose service and workers may be killed, without pretrained weights: they would take minutes."""
    folder = tmp_path_factory.mktemp("mortal")
    database = shutil.copy(sqlite_file, folder / "shortlist.db")
    # A lease is over before another worker is there; a shorter one is lost where the machine is busy.
    settings = {"lease_s": 5.0, "shard_size": SHARD_SIZE, "pretrained": "off"}
    with Site(folder, f"sqlite:///{database}", **settings) as running_site:
        running_site.start_service()
        running_site.start_workers(lanes="short")
        # Apart, as it alone is killed: a lane takes seconds to start.
        running_site.start_workers(lanes="long")
        yield running_site


def fetched(site: Site, url: str, **headers: str) -> httpx.Response:
    """By a browser without a key."""
    return httpx.get(str(site.http.base_url).rstrip("/") + url, headers=headers, timeout=PATIENCE_S)


def is_played(site: Site, item: Json, media_type: str, of_picture: str) -> None:
    """All of it, a part of it, and a picture of it, which is 256 pixels wide or high, or nearly."""
    content = item["content"]
    whole = fetched(site, content["url"])
    assert whole.headers["content-type"] == media_type
    assert whole.headers["accept-ranges"] == "bytes"
    part = fetched(site, content["url"], Range="bytes=4-11")
    assert (part.status_code, part.content) == (206, whole.content[4:12])
    drawn = fetched(site, content["preview_url"])
    assert drawn.headers["content-type"] == of_picture
    assert 250 < max(Image.open(io.BytesIO(drawn.content)).size) <= 256


def of_text(site: Site, item: Json) -> None:
    assert len(item["content"]["text"].split()) == 14
    shown = fetched(site, item["content"]["url"])
    assert shown.headers["content-type"] == "text/plain; charset=utf-8"
    assert shown.text == item["content"]["text"]


def of_recording(site: Site, item: Json) -> None:
    is_played(site, item, "audio/wav", "image/png")


def of_video(site: Site, item: Json) -> None:
    is_played(site, item, "video/mp4", "image/jpeg")


def of_graph(site: Site, item: Json) -> None:
    assert (item["content"]["media_type"], item["content"]["text"]) == ("image/png", None)
    drawn = fetched(site, item["content"]["preview_url"])
    assert drawn.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(drawn.content)).size == (256, 256)


def of_pair(site: Site, item: Json) -> None:
    colour, number = item["key"].split("-")
    assert item["content"]["text"] == caption(colour, int(number))
    shown = fetched(site, item["content"]["preview_url"])
    assert shown.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(shown.content)).size == (24, 24)


@dataclass(frozen=True)
class Kind:
    """write: a folder and a count to a source of items; looked_at: what people see of one."""

    modality: str
    task: str
    classes: tuple[str, ...]
    write: Callable[[Path, int], Path]
    looked_at: Callable[[Site, Json], None]

    def __str__(self) -> str:
        return self.modality


KINDS = [
    Kind(
        "text",
        "masked_tokens",
        tuple(SUBJECTS),
        lambda folder, n: write_table(folder / "texts.csv", n),
        of_text,
    ),
    Kind(
        "audio",
        "simclr",
        ("rise", "fall"),
        lambda folder, n: write_recordings(folder / "sounds.parquet", n),
        of_recording,
    ),
    Kind(
        "video",
        "temporal_order",
        ("left", "right"),
        lambda folder, n: write_films(folder / "films.parquet", n),
        of_video,
    ),
    Kind(
        "graph",
        "attribute_masking",
        ("ring", "star"),
        lambda folder, n: write_graphs(folder / "graphs.jsonl", n),
        of_graph,
    ),
    Kind("pair", "view_matching", ("red", "green"), write_pairs, of_pair),
]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_from_a_table_to_the_next_ranking_and_killed_on_the_way(mortal: Site, kind: Kind) -> None:
    folder = mortal.images / kind.modality
    folder.mkdir()
    # A pair is never told by its source.
    chosen = {"modality": "pair"} if kind.modality == "pair" else {}
    project = Project(
        mortal,
        kind.modality,
        kind.classes,
        round_size=20,
        retrain_min_labels=10,
        pretext_epochs=EPOCHS,
        **chosen,
    )
    assert project.add(kind.write(folder, ITEMS))["added"] == ITEMS
    described = mortal.get(project.at)
    assert (described["modality"], described["pretext_task"]["name"]) == (kind.modality, kind.task)
    assert "Provisional" in until(lambda: project.metrics()["ranking"])["note"]
    first = project.next_batch("ann", 10)
    assert all(item["content"]["kind"] == kind.modality for item in first["items"])
    assert all(item["image_url"] is None for item in first["items"])
    kind.looked_at(mortal, first["items"][0])

    killed_in_training(project)
    killed_with_all_in_scoring(project)
    scored = project.metrics()
    assert (scored["score_run"]["items"], scored["ranking"]["note"]) == (ITEMS, None)
    assert all(item["pretext_loss"] > 0 for item in project.items(split="pool"))

    rest = project.next_batch("ann", 10)
    assert (rest["batch"], len(rest["items"])) == (first["batch"], 10)  # reserved before, and still
    project.label("ann", first["items"], batch=first["batch"])
    project.label_batch("ann", 10)
    until(lambda: project.rounds()[0]["state"] == "measured")
    until(lambda: project.metrics()["ranking"]["labels_used"] == 20)
    assert any(item["prediction"] is not None for item in project.next_batch("ann", 20)["items"])


def killed_in_training(project: Project) -> None:
    def history() -> list[Any]:
        mine = PretextModel.project_id == row_number("p", project.json["id"])
        found = rows(project, sa.select(PretextModel.history).where(mine))
        return found[0].history if found else []

    site = project.site
    site.post(f"{project.at}/pretrain")
    job: Json = until(lambda: running(project, "train_pretext") if len(history()) >= 2 else None)
    site.kill(site.worker_of(job))
    stored = history()
    assert len(stored) < EPOCHS
    site.start_workers(lanes="long")
    site.done(job)
    assert len(history()) == EPOCHS
    assert history()[: len(stored)] == stored  # speeds and all: these epochs were not trained again


def killed_with_all_in_scoring(project: Project) -> None:
    def shards() -> dict[str, int]:
        """Artifact -> when it was written."""
        mine = ScoreRun.project_id == row_number("p", project.json["id"])
        found = rows(project, sa.select(ScoreShard.artifact).join(ScoreRun).where(mine))
        root = project.site.data_dir / "artifacts"
        return {name: (root / name).stat().st_mtime_ns for (name,) in found}

    site = project.site
    job: Json = until(lambda: running(project, "score_pool") if len(shards()) >= 3 else None)
    site.kill_service()
    site.kill(site.worker_of(job))
    stored = shards()
    assert len(stored) < ITEMS / SHARD_SIZE
    site.start_service()
    site.start_workers(lanes="long")
    site.done(job)
    assert stored.items() < shards().items()
    project.settle()
