"""Job train_head with a head that needs items, images or texts: measured, stored, and ranked by, like any other."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
import torch
from PIL import Image

from service.content import limits_of
from service.store import jobs, pipeline
from service.store.control_arm import control_item_ids
from service.store.project_settings import ProjectSettings
from service.store.session import read_session, write_session
from service.store.tables import Head, Item, Job, PretextModel, Project, Round, utc_now
from tests import factories
from tests.worker import running
from tests.worker.jobs.scored_projects import CLASSES, Bench, ScoredProject, label, score_run_of, write_scores
from worker.arrays import Ints
from worker.errors import JobFailed, Unsuited
from worker.heads.finetune import FinetuneHead
from worker.heads.labeled_view import ItemNetwork
from worker.jobs.specs import open_net, probabilities_by, spec_of, store_net
from worker.models.nets import new_net
from worker.scoring.scored_items import ScoredItems

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
HEAD = {"name": "finetune", "params": {"steps": 20}}
CPU = torch.device("cpu")


def _picture(class_number: int, rng: np.random.Generator) -> bytes:
    stripes = (np.arange(12) // [1, 2, 4][class_number]) % 2
    levels = stripes[None, :, None] * 120.0 + rng.normal(60, 30, (12, 12, 3))
    file = BytesIO()
    Image.fromarray(levels.clip(1, 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def _sentence(class_number: int, rng: np.random.Generator) -> bytes:
    words = [["meow", "purr", "whiskers"], ["bark", "fetch", "leash"], ["hoot", "night", "feathers"]]
    return " ".join([*rng.choice(words[class_number], 3), *rng.choice(["the", "a", "of", "and"], 4)]).encode()


@dataclass(frozen=True)
class Kind:
    """Items of one modality, by class, and the pretext model that embeds them."""

    make: Callable[[int, np.random.Generator], bytes]
    suffix: str
    task: str
    config: dict[
        str, Any
    ]  # models of before there were other kinds of items say only how large their images are


IMAGES = Kind(_picture, "png", "rotation", {"image_size": 12})
TEXTS = Kind(_sentence, "txt", "masked_tokens", {"input": {"modality": "text", "tokens": 8}})


def _project(bench: Bench, folder: Path, kind: Kind = IMAGES, **options: Any) -> ScoredProject:
    """A scored project whose items are files, embedded by a network that was never trained."""
    settings = {"head": HEAD} | options.pop("settings", {})
    scored = bench.project(settings=settings, **options)
    rng = np.random.default_rng(0)
    folder.mkdir()
    with write_session(bench.engine) as session:
        for item_id, truth in zip(scored.ids.tolist(), scored.truth.tolist(), strict=True):
            path = folder / f"{item_id}.{kind.suffix}"
            path.write_bytes(kind.make(truth, rng))
            session.get_one(Item, item_id).uri = str(path)
        model = session.get_one(PretextModel, score_run_of(session, scored).pretext_model_id)
        model.config = kind.config | {"seed": 0, "pretrained": False}
        model.task = {"name": kind.task, "params": {}}
        session.get_one(Project, scored.id).modality = spec_of(model).make_modality().name
        factories.make_catalogue_entry(session, kind="head", name="finetune", lane="long")
    store_net(new_net(spec_of(model)), model, bench.artifacts, model.artifact or "")
    modality, decoded = spec_of(model).make_modality(), _decoded(bench, model, folder, kind, scored.ids)
    with torch.no_grad():
        backbone = open_net(model, bench.artifacts, CPU).get_submodule("backbone")
        embeddings = backbone(modality.prepare(decoded)).numpy()
    write_scores(bench.artifacts, "scores/1/arrays", scored.ids, embeddings)
    return scored


def _decoded(bench: Bench, model: PretextModel, folder: Path, kind: Kind, ids: Ints) -> torch.Tensor:
    modality, limits = spec_of(model).make_modality(), limits_of(bench.settings)
    files = [(folder / f"{item_id}.{kind.suffix}").read_bytes() for item_id in ids]
    return torch.stack([modality.decode(data, limits)[0] for data in files])


def _close_round(bench: Bench, scored: ScoredProject, last_label_id: int, labels: int) -> None:
    with write_session(bench.engine) as session:
        closed = session.scalars(sa.select(Round).where(Round.project_id == scored.id)).one()
        closed.last_label_id, closed.labels, closed.closed_at = last_label_id, labels, utc_now()
        project = session.get_one(Project, scored.id)
        factories.make_round(session, project=project, number=closed.number + 1, labels_before=labels)


def _scored_items(bench: Bench, scored: ScoredProject) -> ScoredItems:
    with read_session(bench.engine) as session:
        return ScoredItems.open(bench.artifacts, str(score_run_of(session, scored).artifact))


@pytest.mark.parametrize("kind", [IMAGES, TEXTS], ids=["images", "texts"])
def test_is_trained_measured_and_ranked_by(bench: Bench, tmp_path: Path, kind: Kind) -> None:
    scored = _project(bench, tmp_path / "pool", kind, pool=60, test=40)
    with write_session(bench.engine) as session:
        last = label(session, scored, scored.pool[:30])
    _close_round(bench, scored, last, 30)

    assert bench.train_head(scored) == {"heads": [1], "missing": None}

    (head,) = bench.heads(scored)
    assert (head.kind, head.metrics["trained"]) == (HEAD, "finetune")
    assert (head.metrics["measured_on"], head.metrics["items"]) == ("test", 40)
    assert head.metrics["accuracy"] > 0.8
    assert head.metrics["random_curve"] == []
    assert head.metrics["promoted"]
    ranking, rows = bench.ranking(scored)
    assert ranking.head_id == head.id
    right = [row.predicted_class == scored.true_class(row.item_id) for row in rows]
    assert np.mean(right) > 0.8


def test_in_the_short_lane_it_would_keep_others_waiting(bench: Bench, tmp_path: Path) -> None:
    """It was queued before this head was chosen, or before a worker had announced it."""
    scored = _project(bench, tmp_path / "pool")
    with write_session(bench.engine) as session:
        label(session, scored, scored.pool[:20])
        job_id = pipeline.queue_train_head(session, session.get_one(Project, scored.id), at_once=True)
        assert session.get_one(Job, job_id).lane == "long"
        session.execute(sa.update(Job).values(lane="short"))
    with pytest.raises(Unsuited) as raised:
        running.run(running.claim(bench.engine, bench.settings, bench.artifacts))
    assert (raised.value.lane, raised.value.missing) == ("long", ())


@pytest.mark.parametrize("kind", [IMAGES, TEXTS], ids=["images", "texts"])
def test_the_stored_probabilities_are_those_of_the_stored_head(
    bench: Bench, tmp_path: Path, kind: Kind
) -> None:
    scored = _project(bench, tmp_path / "pool", kind, pool=60, test=10)
    with write_session(bench.engine) as session:
        label(session, scored, scored.pool[:30])
    bench.train_head(scored)
    (head,) = bench.heads(scored)
    items = _scored_items(bench, scored)

    found = probabilities_by(bench.artifacts, head, Project(classes=CLASSES, aliases={}), items)
    some = probabilities_by(
        bench.artifacts,
        head,
        Project(classes=["bat", *CLASSES], aliases={}),
        items.keep(np.arange(70) % 3 == 1),
    )

    with read_session(bench.engine) as session:
        model = session.get_one(PretextModel, score_run_of(session, scored).pretext_model_id)
    network = ItemNetwork(
        backbone=lambda: new_net(spec_of(model)).get_submodule("backbone"),
        prepare=spec_of(model).make_modality().prepare,
        device=CPU,
    )
    with np.load(bench.artifacts.local_path(head.artifact), allow_pickle=False) as arrays:
        fitted = FinetuneHead().load(dict(arrays), network)
    decoded = _decoded(bench, model, tmp_path / "pool", kind, scored.ids)
    np.testing.assert_allclose(fitted.probabilities(decoded), found, atol=1e-5)
    np.testing.assert_array_equal(some[:, 1:], found[1::3])
    assert (some[:, 0] == 0).all()


def test_control_items_are_predicted_by_trainings_that_had_not_seen_them(
    bench: Bench, tmp_path: Path
) -> None:
    """Labels of control items by the dice: a head that had seen them would repeat them."""
    scored = _project(bench, tmp_path / "pool", pool=120, settings={"control_fraction": 0.25})
    rng = np.random.default_rng(1)
    with write_session(bench.engine) as session:
        control = control_item_ids(session, scored.id, ProjectSettings(control_fraction=0.25))
        label(session, scored, [item for item in scored.pool if item not in control][:60])
        for item in control:
            last = label(session, scored, [item], class_name=CLASSES[int(rng.integers(3))])
    _close_round(bench, scored, last, 90)

    bench.train_head(scored)

    (head,) = bench.heads(scored)
    assert (head.metrics["measured_on"], head.metrics["items"]) == ("control", 30)
    assert head.metrics["accuracy"] < 0.6


def test_without_calibration_nothing_is_measured_on_control_items(bench: Bench, tmp_path: Path) -> None:
    head: dict[str, Any] = {"name": "finetune", "params": {"steps": 2, "calibrated": False}}
    scored = _project(bench, tmp_path / "pool", pool=40, settings={"control_fraction": 0.5, "head": head})
    with write_session(bench.engine) as session:
        last = label(session, scored, scored.pool[:30])
    _close_round(bench, scored, last, 30)

    bench.train_head(scored)

    (trained,) = bench.heads(scored)
    assert (trained.metrics["measured_on"], trained.metrics["temperature"]) == (None, 1.0)


def test_an_item_that_is_gone_does_not_stop_it_but_all_gone_does(bench: Bench, tmp_path: Path) -> None:
    scored = _project(bench, tmp_path / "pool", pool=40, test=20)
    with write_session(bench.engine) as session:
        label(session, scored, scored.pool[:20])
    for item in (scored.pool[0], scored.pool[30]):
        (tmp_path / "pool" / f"{item}.png").unlink()

    bench.train_head(scored)

    (head,) = bench.heads(scored)
    probabilities = probabilities_by(
        bench.artifacts, head, Project(classes=CLASSES, aliases={}), _scored_items(bench, scored)
    )
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)

    for path in (tmp_path / "pool").iterdir():
        path.unlink()
    with write_session(bench.engine) as session:
        label(session, scored, scored.pool[20:21])
    with pytest.raises(JobFailed, match="No labeled item can be read any more"):
        bench.train_head(scored)


def test_killed_in_the_middle_it_trains_again_and_stores_one_head(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.jobs.train_head.decoded_pool._READ_AT_A_TIME", 16)
    scored = _project(bench, tmp_path / "pool", pool=40, test=20)
    with write_session(bench.engine) as session:
        label(session, scored, scored.pool[:20])
        pipeline.queue_train_head(session, session.get_one(Project, scored.id), at_once=True)
    told: list[tuple[float, str]] = []

    def report(fraction: float, message: str) -> None:
        told.append((fraction, message))
        if "predicting, 32 of 60" in message:
            raise KeyboardInterrupt

    killed = running.claim(bench.engine, bench.settings, bench.artifacts, report)
    with pytest.raises(KeyboardInterrupt):
        running.run(killed)
    assert bench.heads(scored) == []
    running.hand_back(killed)

    running.run(running.claim(bench.engine, bench.settings, bench.artifacts))

    assert [head.version for head in bench.heads(scored)] == [1]
    assert [fraction for fraction, _ in told] == sorted(fraction for fraction, _ in told)
    assert any(re.search("training 2 of 4", message) for _, message in told)


def test_a_job_that_lost_its_lease_publishes_nothing(bench: Bench, tmp_path: Path) -> None:
    scored = _project(bench, tmp_path / "pool", pool=30, settings={"head": HEAD | {"params": {"steps": 1}}})
    with write_session(bench.engine) as session:
        label(session, scored, scored.pool[:20])
        pipeline.queue_train_head(session, session.get_one(Project, scored.id), at_once=True)
    context = running.claim(bench.engine, bench.settings, bench.artifacts)
    with write_session(bench.engine) as session:
        session.execute(sa.update(Job).where(Job.id == context.job.id).values(token=Job.token + 1))

    with pytest.raises(jobs.LeaseLost):
        running.run(context)

    with read_session(bench.engine) as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Head)) == 0
