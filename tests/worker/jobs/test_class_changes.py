"""Jobs and changes of classes at the same time: a job that read the old names writes the new ones."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from service.projects import class_changes, project_copy
from service.projects.class_changes import Kind, Wanted
from service.settings import Settings
from service.store import pipeline
from service.store.artifacts import Artifacts
from service.store.session import read_session, write_session
from service.store.tables import Head, Item, Label, Project, Suspect
from tests.pictures import encoded, picture, write_pictures
from tests.worker import running
from tests.worker.jobs.scored_projects import CLASSES, Bench, ScoredProject, label, score_run_of
from tests.worker.jobs.test_import_source import Importing, counts
from worker.jobs import check_labels, train_head
from worker.jobs.specs import probabilities_by
from worker.scoring.scored_items import ScoredItems


def change(bench: Bench | Importing, number: int, kind: Kind, *classes: str, to: str | None = None) -> None:
    with write_session(bench.engine) as session:
        project = session.get_one(Project, number)
        class_changes.change(session, project, Wanted(kind, classes, to), by=None)


def labeled(bench: Bench, size: int = 60, **options: Any) -> ScoredProject:
    scored = bench.project(settings={"retrain_min_interval_s": 0, "round_size": 1000}, **options)
    with write_session(bench.engine) as session:
        label(session, scored, scored.pool[:size])
    return scored


def probabilities(bench: Bench, scored: ScoredProject) -> Any:
    with read_session(bench.engine) as session:
        project, run = session.get_one(Project, scored.id), score_run_of(session, scored)
        head = session.get_one(Head, project.head_id)
    items = ScoredItems.open(bench.artifacts, str(run.artifact))
    return probabilities_by(bench.artifacts, head, project, items)


def test_a_renamed_class_costs_no_training(bench: Bench) -> None:
    scored = labeled(bench, test=20)
    bench.train_head(scored)
    before = probabilities(bench, scored)
    change(bench, scored.id, "rename", "dog", to="hound")
    np.testing.assert_array_equal(probabilities(bench, scored), before)
    assert bench.train_head(scored) == {"heads": [], "missing": None}
    (head,) = bench.heads(scored)
    assert list(head.metrics["recall"]) == head.classes == ["cat", "hound", "owl"]


def test_a_head_that_knows_merged_classes_apart_adds_their_probabilities(bench: Bench) -> None:
    scored = labeled(bench)
    bench.train_head(scored)
    before = probabilities(bench, scored)
    change(bench, scored.id, "merge", "cat", "owl", to="hunter")
    after = probabilities(bench, scored)
    np.testing.assert_allclose(
        after, np.stack([before[:, 0] + before[:, 2], before[:, 1]], axis=1), rtol=1e-6
    )
    bench.rank(scored)
    _, ranked = bench.ranking(scored)
    assert {row.predicted_class for row in ranked} <= {"hunter", "dog"}
    bench.train_head(scored)
    newest = bench.heads(scored)[-1]
    assert (newest.classes, newest.metrics["promoted"]) == (["hunter", "dog"], True)
    with read_session(bench.engine) as session:
        assert session.get_one(Project, scored.id).head_id == newest.id


def test_a_class_renamed_while_a_head_is_trained(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    scored = labeled(bench, test=20)
    meanwhile(
        monkeypatch,
        train_head._Trainer,
        "_fit",
        lambda: change(bench, scored.id, "rename", "dog", to="hound"),
    )
    bench.train_head(scored)
    (head,) = bench.heads(scored)
    assert list(head.metrics["recall"]) == head.classes == ["cat", "hound", "owl"]
    assert bench.train_head(scored)["heads"] == []


def test_classes_merged_while_a_head_is_trained(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    scored = labeled(bench)

    def merge() -> None:
        change(bench, scored.id, "merge", "cat", "owl", to="hunter")

    meanwhile(monkeypatch, train_head._Trainer, "_fit", merge)
    bench.train_head(scored)
    assert [head.classes for head in bench.heads(scored)] == [CLASSES]  # what it is: three
    assert probabilities(bench, scored).shape[1] == 2
    while len(bench.heads(scored)) < 2:  # the merge has queued the next
        running.run(running.claim(bench.engine, bench.settings, bench.artifacts))
    assert bench.heads(scored)[-1].classes == ["hunter", "dog"]


@pytest.mark.parametrize(("kind", "suspects"), [("rename", 3), ("merge", 0)])
def test_classes_that_change_while_labels_are_checked(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, kind: Kind, suspects: int
) -> None:
    """Cats that are labeled as owls are suspect while these are two classes."""
    scored = labeled(bench)
    wrong = [one for one in scored.pool[:60] if scored.true_class(one) == "cat"][:3]
    with write_session(bench.engine) as session:
        for number in wrong:
            session.get_one(Item, number).class_name = "owl"
        pipeline.queue_check_labels(session, session.get_one(Project, scored.id))

    def do() -> None:
        change(bench, scored.id, kind, "owl", *(["cat"] if kind == "merge" else []), to="bird")

    meanwhile(monkeypatch, check_labels, "held_out_probabilities", do)
    running.run(running.claim(bench.engine, bench.settings, bench.artifacts, kind="check_labels"))
    with read_session(bench.engine) as session:
        found = session.scalars(sa.select(Suspect).where(Suspect.item_id.in_(wrong))).all()
        assert [one.class_name for one in found] == ["bird"] * suspects
        names = set(session.scalars(sa.select(Item.class_name).where(Item.class_name.is_not(None))))
        assert names <= set(session.get_one(Project, scored.id).classes)


def meanwhile(monkeypatch: pytest.MonkeyPatch, holder: object, name: str, do: Callable[[], None]) -> None:
    """`do` is done before `holder.name` goes on, once."""
    before, left = getattr(holder, name), [do]

    def after(*given: Any, **named: Any) -> Any:
        if left:
            left.pop()()
        return before(*given, **named)

    monkeypatch.setattr(holder, name, after)


def test_a_copy_knows_the_old_names_too(bench: Bench) -> None:
    scored = labeled(bench, size=6)
    change(bench, scored.id, "rename", "dog", to="hound")
    with write_session(bench.engine) as session:
        copied, _ = project_copy.copy(session, session.get_one(Project, scored.id), name="copy", labels=True)
    running.run(running.claim(bench.engine, bench.settings, bench.artifacts, kind="copy_project"))
    with read_session(bench.engine) as session:
        assert session.get_one(Project, copied.id).aliases == {"dog": "hound"}
        found = session.execute(
            sa.select(Label.class_name, Label.said).where(Label.project_id == copied.id)
        ).all()
        assert ("hound", "dog") in found
        assert {row.said for row in found} == {None, "dog"}


@pytest.fixture
def importing(engine: sa.Engine, settings: Settings, artifacts: Artifacts) -> Importing:
    return Importing(engine, settings, artifacts)


def test_a_folder_of_test_items_by_its_old_name_or_another_spelling(
    importing: Importing, tmp_path: Path
) -> None:
    apart, composed = "cafe\u0301", "caf\u00e9"
    change(importing, importing.project.id, "add", composed)
    write_pictures(tmp_path / "test" / "cat", 2, first=0)
    write_pictures(tmp_path / "test" / apart, 2, first=2)
    assert counts(importing(tmp_path / "test", "test")) == (4, 0, 0)
    assert sorted(str(item.class_name) for item in importing.items()) == [composed, composed, "cat", "cat"]
    change(importing, importing.project.id, "rename", "cat", to="lion")
    write_pictures(tmp_path / "test" / "cat", 3, first=0)
    result = importing(tmp_path / "test", "test")
    assert (result["added"], result["known"], result["refused"]) == (1, 4, 0), result["refusals"]
    assert sorted(str(item.class_name) for item in importing.items()) == [
        composed,
        composed,
        "lion",
        "lion",
        "lion",
    ]


def test_a_folder_copied_from_a_mac_has_the_same_keys(importing: Importing, tmp_path: Path) -> None:
    """There names are taken apart; by their bytes they would have moved, and with other bytes be new and missing."""
    write_pictures(tmp_path / "pool" / "cafe\u0301", 2, first=0)
    assert counts(importing(tmp_path / "pool")) == (2, 0, 0)
    ids = {item.id for item in importing.items()}
    (tmp_path / "pool" / "cafe\u0301").rename(tmp_path / "pool" / "caf\u00e9")
    result = importing(tmp_path / "pool")
    assert (result["known"], result["missing"], result["moved"]) == (2, 0, 0), result
    assert {item.id for item in importing.items()} == ids
    (changed, _) = sorted((tmp_path / "pool" / "caf\u00e9").iterdir())
    changed.write_bytes(encoded(picture(7)))
    result = importing(tmp_path / "pool")
    assert (result["known"], result["changed"], result["missing"]) == (1, 1, 0), result


def test_files_whose_names_only_read_the_same_are_two(importing: Importing, tmp_path: Path) -> None:
    for number, folder in enumerate(("cafe\u0301", "caf\u00e9")):
        write_pictures(tmp_path / "pool" / folder, 1, first=number)
    for again in (False, True):
        result = importing(tmp_path / "pool")
        assert (result["known"] if again else result["added"], result["refused"]) == (2, 0), result
    assert len(importing.items()) == 2
