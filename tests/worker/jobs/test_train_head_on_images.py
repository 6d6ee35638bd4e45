"""Job train_head with a head that trains on images: measured, stored, and ranked by, like any other."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
import torch
from PIL import Image

from service.store import jobs, pipeline
from service.store.control_arm import control_item_ids
from service.store.project_settings import ProjectSettings
from service.store.session import read_session, write_session
from service.store.tables import Head, Item, Job, PretextModel, Project, Round, utc_now
from tests import factories
from tests.worker import running
from tests.worker.jobs.scored_projects import CLASSES, Bench, ScoredProject, label, score_run_of, write_scores
from worker.errors import JobFailed, Unsuited
from worker.heads.finetune import FinetuneHead
from worker.heads.labeled_view import ItemNetwork
from worker.jobs.specs import open_net, probabilities_by, spec_of, store_net
from worker.modalities.image.pixels import normalised, to_pixels
from worker.models.nets import new_net
from worker.scoring.scored_items import ScoredItems

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
HEAD = {"name": "finetune", "params": {"steps": 20}}
CPU = torch.device("cpu")


def _picture(class_number: int, rng: np.random.Generator) -> Image.Image:
    stripes = (np.arange(12) // [1, 2, 4][class_number]) % 2
    levels = stripes[None, :, None] * 120.0 + rng.normal(60, 30, (12, 12, 3))
    return Image.fromarray(levels.clip(1, 255).astype(np.uint8))


def _project(bench: Bench, folder: Path, **options: Any) -> ScoredProject:
    """A scored project whose items are pictures, embedded by a network that was never trained."""
    settings = {"head": HEAD} | options.pop("settings", {})
    scored = bench.project(settings=settings, **options)
    rng = np.random.default_rng(0)
    pictures = [_picture(int(truth), rng) for truth in scored.truth]
    folder.mkdir()
    with write_session(bench.engine) as session:
        for item_id, picture in zip(scored.ids.tolist(), pictures, strict=True):
            session.get_one(Item, item_id).uri = str(folder / f"{item_id}.png")
            picture.save(folder / f"{item_id}.png")
        model = session.get_one(PretextModel, score_run_of(session, scored).pretext_model_id)
        model.config = {"image_size": 12, "seed": 0, "pretrained": False}
        factories.make_catalogue_entry(session, kind="head", name="finetune", lane="long")
    store_net(new_net(spec_of(model)), model, bench.artifacts, model.artifact or "")
    pixels = torch.stack([to_pixels(picture, 12) for picture in pictures])
    with torch.no_grad():
        backbone = open_net(model, bench.artifacts, CPU).get_submodule("backbone")
        write_scores(bench.artifacts, "scores/1/arrays", scored.ids, backbone(normalised(pixels)).numpy())
    return scored


def _close_round(bench: Bench, scored: ScoredProject, last_label_id: int, labels: int) -> None:
    with write_session(bench.engine) as session:
        closed = session.scalars(sa.select(Round).where(Round.project_id == scored.id)).one()
        closed.last_label_id, closed.labels, closed.closed_at = last_label_id, labels, utc_now()
        project = session.get_one(Project, scored.id)
        factories.make_round(session, project=project, number=closed.number + 1, labels_before=labels)


def _scored_items(bench: Bench, scored: ScoredProject) -> ScoredItems:
    with read_session(bench.engine) as session:
        return ScoredItems.open(bench.artifacts, str(score_run_of(session, scored).artifact))


def test_is_trained_measured_and_ranked_by(bench: Bench, tmp_path: Path) -> None:
    scored = _project(bench, tmp_path / "pool", pool=60, test=40)
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


def test_the_stored_probabilities_are_those_of_the_stored_head(bench: Bench, tmp_path: Path) -> None:
    scored = _project(bench, tmp_path / "pool", pool=60, test=10)
    with write_session(bench.engine) as session:
        label(session, scored, scored.pool[:30])
    bench.train_head(scored)
    (head,) = bench.heads(scored)
    items = _scored_items(bench, scored)

    found = probabilities_by(bench.artifacts, head, CLASSES, items)
    some = probabilities_by(bench.artifacts, head, ["bat", *CLASSES], items.keep(np.arange(70) % 3 == 1))

    with read_session(bench.engine) as session:
        model = session.get_one(PretextModel, score_run_of(session, scored).pretext_model_id)
    with np.load(bench.artifacts.local_path(head.artifact), allow_pickle=False) as arrays:
        backbone = new_net(spec_of(model)).get_submodule("backbone")
        network = ItemNetwork(backbone=lambda: backbone, prepare=normalised, device=CPU)
        fitted = FinetuneHead().load(dict(arrays), network)
    pixels = [to_pixels(Image.open(tmp_path / "pool" / f"{i}.png"), 12) for i in scored.ids]
    np.testing.assert_allclose(fitted.probabilities(torch.stack(pixels)), found, atol=1e-5)
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


def test_an_image_that_is_gone_does_not_stop_it_but_all_gone_does(bench: Bench, tmp_path: Path) -> None:
    scored = _project(bench, tmp_path / "pool", pool=40, test=20)
    with write_session(bench.engine) as session:
        label(session, scored, scored.pool[:20])
    for item in (scored.pool[0], scored.pool[30]):
        (tmp_path / "pool" / f"{item}.png").unlink()

    bench.train_head(scored)

    (head,) = bench.heads(scored)
    probabilities = probabilities_by(bench.artifacts, head, CLASSES, _scored_items(bench, scored))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)

    for path in (tmp_path / "pool").iterdir():
        path.unlink()
    with write_session(bench.engine) as session:
        label(session, scored, scored.pool[20:21])
    with pytest.raises(JobFailed, match="No image of a labeled item can be read any more"):
        bench.train_head(scored)


def test_killed_in_the_middle_it_trains_again_and_stores_one_head(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.jobs.train_head.item_images._READ_AT_A_TIME", 16)
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
