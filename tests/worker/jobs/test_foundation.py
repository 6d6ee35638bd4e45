"""A foundation beside the pretext model: settled once, stored, joined, copied; the gate changes the space."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import sqlalchemy as sa
import torch
from torch import Tensor, nn

from service.content.reader import content_hash_of
from service.models.scores import embeddings_told
from service.settings import Settings
from service.store import pipeline
from service.store.pipeline import queue_probe_pretext, queue_score_pool, queue_score_raw
from service.store.session import read_session, write_session
from service.store.tables import Item, Job, PretextModel, Project, Ranking, ScoreRun
from tests.factories import make_item, make_label, make_pretext_model, make_project
from tests.journeys.sounds import recording
from tests.pictures import write_pictures
from tests.worker.jobs.scored_projects import Bench
from tests.worker.running import claim, run
from worker.errors import JobFailed
from worker.jobs.score_pool.foundation import load_frame
from worker.jobs.specs import spec_of, store_net
from worker.modalities import image, modalities
from worker.modalities.foundation import Foundation, NoWeights
from worker.models.nets import new_net
from worker.scoring.foundation_net import FoundationNet
from worker.scoring.scored_items import ScoredItems, open_parts

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

CONFIG = {"image_size": 12, "seed": 0, "pretrained": False, "epochs": 2, "wanted_backbone": "auto"}
SEEN: dict[str, dict[str, Any]] = {
    "text": {"tokens": 8},
    "audio": {"rate": 8_000, "seconds": 0.1, "windows": 1},
}


class Pixels(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.weight * pixels.float().flatten(1) / 255


class Tiny(Foundation):
    """The pixels themselves; `there` says whether the worker has the weights."""

    name: ClassVar[str] = "tiny"
    batch: ClassVar[dict[str, int]] = {"cpu": 3, "cuda": 3}
    there = True

    def places(self, settings: Settings) -> list[Any]:
        return [("extra", self.read)]

    def read(self) -> dict[str, Tensor]:
        if not self.there:
            raise NoWeights("The extra is not installed.")
        return {"weight": torch.ones(1)}

    def make(self, state: dict[str, Tensor]) -> nn.Module:
        net = Pixels()
        net.load_state_dict(state)
        return net.eval()


class Joined:
    """kind: the modality of the items; labels: the classes of items number 0, 1, … in turn"""

    def __init__(
        self,
        bench: Bench,
        folder: Path,
        foundation: Tiny,
        kind: str = "image",
        labels: tuple[str, ...] = ("even", "odd"),
    ) -> None:
        self.bench, self.folder, self.foundation = bench, folder, foundation
        self.kind, self.labels = kind, labels
        config = CONFIG | ({"input": {"modality": kind} | SEEN[kind]} if kind != "image" else {})
        task = {"name": modalities()[kind].default_task, "params": {}}
        with write_session(bench.engine) as session:
            project = make_project(session, classes=list(labels), modality=kind)
            model = make_pretext_model(
                session, project=project, task=task, config=config, artifact="m.safetensors"
            )
            self.project_id, self.model_id = project.id, model.id
        store_net(new_net(spec_of(model)), model, bench.artifacts, "m.safetensors")

    def add(self, count: int, first: int = 0) -> None:
        self.folder.mkdir(exist_ok=True)
        if self.kind == "image":
            write_pictures(self.folder, count, first)
        for number in range(first, first + count):
            if self.kind == "text":
                (self.folder / f"{number:05}.txt").write_text(" ".join(f"w{number * n}" for n in range(9)))
            elif self.kind == "audio":
                (self.folder / f"{number:05}.wav").write_bytes(recording("rise", number, 0.1))
        with write_session(self.bench.engine) as session:
            project = session.get_one(Project, self.project_id)
            for number in range(first, first + count):
                (path,) = self.folder.glob(f"{number:05}.*")
                make_item(
                    session,
                    project=project,
                    key=f"{number}",
                    uri=str(path),
                    content_hash=content_hash_of(path.read_bytes()),
                )

    def score(self, **settings: Any) -> ScoredItems:
        """By the newest version."""
        with write_session(self.bench.engine) as session:
            session.execute(sa.delete(Job))
            queue_score_pool(session, session.get_one(Project, self.project_id), self.models()[-1].id)
        return self.go_on(**settings)

    def go_on(self, kind: str | None = None, **settings: Any) -> ScoredItems:
        with_all = self.bench.settings.model_copy(update={"pretrained": "auto"} | settings)
        run(claim(self.bench.engine, with_all, self.bench.artifacts, kind=kind))
        return ScoredItems.open(self.bench.artifacts, self.artifact())

    def queued(self) -> set[str]:
        with read_session(self.bench.engine) as session:
            return set(session.scalars(sa.select(Job.kind).where(Job.state == "queued")))

    def note(self) -> str | None:
        with read_session(self.bench.engine) as session:
            project = session.get_one(Project, self.project_id)
            return session.get_one(Ranking, project.ranking_id).note

    def artifact(self) -> str:
        with read_session(self.bench.engine) as session:
            project = session.get_one(Project, self.project_id)
            return str(session.get_one(ScoreRun, project.score_run_id).artifact)

    def models(self) -> list[PretextModel]:
        with read_session(self.bench.engine) as session:
            return list(session.scalars(sa.select(PretextModel).order_by(PretextModel.id)))

    def label_all(self) -> None:
        with write_session(self.bench.engine) as session:
            items = session.scalars(sa.select(Item).order_by(Item.id)).all()
            for item in items:
                make_label(session, item=item, class_name=self.labels[int(item.key) % len(self.labels)])
            session.get_one(Project, self.project_id).labels_used = len(items)


@pytest.fixture
def joined(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Joined:
    monkeypatch.setattr(image, "SIDE", 8)
    monkeypatch.setattr(pipeline, "_FIRST_RANKING_S", 0.0)
    foundation = Tiny()
    monkeypatch.setattr(image.Image, "foundation", foundation)
    return Joined(bench, tmp_path / "pool", foundation)


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts of the items that went through the foundation at a time, but for trials with made-up ones."""
    counts: list[int] = []
    embeddings = FoundationNet.embeddings

    def counting(self: FoundationNet, items: Tensor) -> Any:
        if len(items) > 1:
            counts.append(len(items))
        return embeddings(self, items)

    monkeypatch.setattr(FoundationNet, "embeddings", counting)
    return counts


def test_both_are_stored_and_joined_and_it_is_said(joined: Joined) -> None:
    joined.add(30)
    scored = joined.score()

    (model,) = joined.models()
    trained, pretrained = open_parts(joined.bench.artifacts, joined.artifact()) or (None, None)
    assert trained is not None
    assert pretrained is not None
    assert (trained.shape, pretrained.shape) == ((30, 192), (30, 192))
    assert scored.embeddings.shape == (30, 192 + 128)
    weights = model.config["foundation"]
    assert (weights["network"], weights["source"], model.config["space"]) == ("tiny", "extra", "joined")
    assert joined.bench.artifacts.exists(weights["artifact"])
    assert (
        "joined with those by pretrained weights (tiny, from an extra that is installed"
        in embeddings_told(model)
    )
    assert len(set(scored.losses.tolist())) == 30


def test_a_worker_without_weights_takes_the_pretext_model_and_says_why(joined: Joined) -> None:
    joined.add(10)
    joined.foundation.there = False
    scored = joined.score()

    (model,) = joined.models()
    assert scored.embeddings.shape == (10, 192)
    assert open_parts(joined.bench.artifacts, joined.artifact()) is None
    assert model.config["foundation"] is None
    assert embeddings_told(model) == "Embeddings: by the pretext model (small). The extra is not installed."
    joined.foundation.there = True
    joined.add(2, first=10)
    assert joined.score().embeddings.shape == (12, 192)  # its embeddings stay comparable


def test_a_backbone_that_was_asked_for_stands_alone(joined: Joined) -> None:
    with write_session(joined.bench.engine) as session:
        session.get_one(PretextModel, joined.model_id).config = CONFIG | {"wanted_backbone": "small"}
    joined.add(10)

    assert joined.score().embeddings.shape == (10, 192)
    assert "foundation" not in joined.models()[0].config


def test_new_items_are_scored_by_a_worker_that_has_no_weights_of_its_own(
    joined: Joined, embedded: list[int]
) -> None:
    joined.add(20)
    before = joined.score()
    joined.foundation.there = False
    embedded.clear()
    joined.add(4, first=20)
    after = joined.score(pretrained="off")

    assert embedded == [4]
    # But for the last bit: BLAS rounds a product of 24 rows otherwise than one of 20.
    assert after.embeddings[:20] == pytest.approx(before.embeddings, abs=1e-3)
    assert after.embeddings.shape == (24, 320)
    assert after.embeddings[20:].any(axis=1).all()


def test_before_a_pretext_model_the_pool_is_ranked_by_pretrained_weights(
    joined: Joined, embedded: list[int]
) -> None:
    """After the ranking by raw features, which takes seconds; what comes later is all that is embedded then."""
    joined.add(40)
    with write_session(joined.bench.engine) as session:
        session.execute(sa.delete(PretextModel))
        queue_score_raw(session, session.get_one(Project, joined.project_id))
    joined.go_on()
    assert joined.queued() == {"rank", "score_foundation"}
    joined.go_on()
    assert joined.note() == "Provisional: by raw features, until there is a pretext model."
    scored = joined.go_on(kind="score_foundation")
    assert scored.embeddings.shape == (40, 128)
    assert embedded == [40]
    joined.go_on()
    assert joined.note() == "Provisional: by pretrained weights, until there is a pretext model."

    joined.add(5, first=40)
    with write_session(joined.bench.engine) as session:
        session.execute(sa.delete(Job))
        queue_score_raw(session, session.get_one(Project, joined.project_id))
    before = joined.artifact()
    joined.go_on()
    assert joined.artifact() == before
    assert joined.queued() == {"score_foundation"}
    with write_session(joined.bench.engine) as session:
        session.execute(sa.update(Job).values(run_at=0))
    scored = joined.go_on(kind="score_foundation")
    assert scored.embeddings.shape == (45, 128)
    assert embedded == [40, 5]
    earlier, later = (open_parts(joined.bench.artifacts, one) for one in (before, joined.artifact()))
    assert earlier is not None
    assert later is not None
    assert np.array_equal(earlier[1], later[1][:40])


def test_a_worker_without_weights_leaves_the_ranking_by_raw_features(joined: Joined) -> None:
    joined.add(40)
    joined.foundation.there = False
    with write_session(joined.bench.engine) as session:
        session.execute(sa.delete(PretextModel))
        queue_score_raw(session, session.get_one(Project, joined.project_id))
    joined.go_on()
    before = joined.artifact()
    joined.go_on(kind="score_foundation")

    assert joined.artifact() == before
    with read_session(joined.bench.engine) as session:
        (result,) = session.scalars(sa.select(Job.result).where(Job.kind == "score_foundation"))
    assert result == {"items": 0, "note": "The extra is not installed."}


def test_the_gate_chooses_a_space_in_one_switch_and_nothing_is_computed_again(
    joined: Joined, embedded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The foundation knows nothing here; the pretext model does, once it is told the answer."""
    joined.add(120)
    joined.score()
    scored_by = joined.artifact()
    parts = open_parts(joined.bench.artifacts, scored_by)
    assert parts is not None
    rng = np.random.default_rng(0)
    told = rng.normal(size=parts[0].shape)
    told[:, 0] += 200 * (np.arange(120) % 2)
    known: dict[str, Any] = {"trained": told, "pretrained": rng.normal(size=parts[1].shape)}
    for name, values in known.items():
        with joined.bench.artifacts.writing(f"{scored_by}/{name}.npy") as file:
            np.save(file, values.astype(np.float16))
    with joined.bench.artifacts.writing(f"{scored_by}/embeddings.npy") as file:
        np.save(file, rng.normal(size=(120, 128)).astype(np.float16))
    with write_session(joined.bench.engine) as session:
        first = session.get_one(PretextModel, joined.model_id)
        first.config = first.config | {"space": "pretrained"}
    joined.label_all()
    with write_session(joined.bench.engine) as session:
        session.execute(sa.delete(Job))
        queue_probe_pretext(session, session.get_one(Project, joined.project_id))
    embedded.clear()
    joined.go_on()

    first, second = joined.models()
    with read_session(joined.bench.engine) as session:
        gate = session.scalars(sa.select(ScoreRun.gate)).one() or {}
        waiting = session.scalars(sa.select(Job.kind).where(Job.state == "queued")).all()
    assert set(gate["linear"]) == {"trained", "pretrained", "joined", "untrained", "raw"}
    assert gate["served"] == "pretrained"
    assert gate["better"] == second.config["space"] in ("trained", "joined")
    assert "which takes its place" in gate["reason"]
    assert second.artifact == first.artifact
    assert f"in place of pretext model {first.version}: On 120 labeled items" in second.diagnostics["note"]
    assert "score_pool" in waiting
    after = joined.score()
    assert embedded == []
    frame = load_frame(joined.bench.artifacts, second.config["frame"])
    expected = frame.embeddings(gate["better"], *(known[name].astype(np.float16) for name in known))
    assert np.array_equal(after.embeddings, expected)
    assert joined.models()[-1].id == second.id


class First(Pixels):
    """As many numbers of an item as a frame keeps all directions of."""

    def forward(self, items: Tensor) -> Tensor:
        return super().forward(items)[:, :8]


class OfFirst(Tiny):
    def make(self, state: dict[str, Tensor]) -> nn.Module:
        return First().eval()


@pytest.mark.parametrize("kind", ["text", "audio"])
def test_texts_and_recordings_are_served_joined_where_that_is_better(
    kind: str, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are four classes: the pretext model knows the first letter of each, pretrained weights the second."""
    foundation = OfFirst()
    monkeypatch.setattr(modalities()[kind], "foundation", foundation)
    monkeypatch.setattr(modalities()[kind], "for_foundation", lambda modality: modality)
    joined = Joined(bench, tmp_path / "pool", foundation, kind, ("aa", "ab", "ba", "bb"))
    joined.add(120)
    assert joined.score().embeddings.shape[0] == 120
    assert joined.models()[0].config["space"] == "joined"  # without labels

    scored_by = joined.artifact()
    parts = open_parts(bench.artifacts, scored_by)
    assert parts is not None
    rng, numbers = np.random.default_rng(0), np.arange(120)
    known: dict[str, Any] = {}
    for (name, values), bit in zip(
        {"trained": parts[0], "pretrained": parts[1]}.items(), (2, 1), strict=True
    ):
        known[name] = rng.normal(size=values.shape).astype(np.float16)
        known[name][:, 0] += np.where(numbers & bit, 200, -200).astype(np.float16)
        with bench.artifacts.writing(f"{scored_by}/{name}.npy") as file:
            np.save(file, known[name])
    with write_session(bench.engine) as session:
        first = session.get_one(PretextModel, joined.model_id)
        first.config = first.config | {"space": "pretrained"}
    frame = load_frame(bench.artifacts, joined.models()[0].config["frame"])
    with bench.artifacts.writing(f"{scored_by}/embeddings.npy") as file:
        np.save(file, frame.embeddings("pretrained", known["trained"], known["pretrained"]))
    joined.label_all()
    with write_session(bench.engine) as session:
        session.execute(sa.delete(Job))
        queue_probe_pretext(session, session.get_one(Project, joined.project_id))
    joined.go_on()

    with read_session(bench.engine) as session:
        gate = session.scalars(sa.select(ScoreRun.gate)).one() or {}
    assert set(gate["linear"]) == {"trained", "pretrained", "joined", "untrained", "raw"}
    assert gate["linear"]["joined"] > 0.9 > 0.7 > max(gate["linear"][name] for name in known)
    assert (gate["served"], gate["better"]) == ("pretrained", "joined")
    after = joined.score()
    expected = frame.embeddings("joined", known["trained"], known["pretrained"])
    assert np.array_equal(after.embeddings, expected)
    with read_session(bench.engine) as session:
        project = session.get_one(Project, joined.project_id)
        served = session.get_one(ScoreRun, project.score_run_id)
    assert served.pretext_model_id == joined.models()[-1].id
    assert "joined with those by pretrained weights (tiny" in embeddings_told(joined.models()[-1])


@pytest.mark.parametrize("kind", ["score_raw", "score_pool"])
def test_a_pool_none_of_which_can_be_read_is_told_in_a_sentence(joined: Joined, kind: str) -> None:
    """All files hold other bytes than were imported."""
    joined.add(5)
    for file in joined.folder.iterdir():
        file.write_bytes(b"other")
    if kind == "score_pool":
        with pytest.raises(JobFailed, match="No item of the pool can be read"):
            joined.score()
        return
    with write_session(joined.bench.engine) as session:
        session.execute(sa.delete(PretextModel))
        queue_score_raw(session, session.get_one(Project, joined.project_id))
    run(claim(joined.bench.engine, joined.bench.settings, joined.bench.artifacts))
    with read_session(joined.bench.engine) as session:
        (result,) = session.scalars(sa.select(Job.result).where(Job.kind == "score_raw"))
    assert result == {"items": 0, "note": "No item of the pool can be read."}
