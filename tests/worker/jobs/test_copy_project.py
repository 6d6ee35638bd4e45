"""A copy has everything of its source, and what is done twice is not there twice."""

from typing import Any

import pytest
import sqlalchemy as sa

from service.labeling import labels
from service.labeling.labels import NewLabel
from service.projects import project_copy, projects
from service.settings import Settings
from service.store import asides
from service.store.artifacts import Artifacts
from service.store.asides import Displaced
from service.store.ids import public_id
from service.store.session import read_session, write_session
from service.store.tables import Item, Job, Label, PretextModel, Project, Round, utc_now
from tests import factories
from tests.worker import running
from worker.jobs import copy_project


@pytest.fixture
def source(engine: sa.Engine) -> int:
    with write_session(engine) as session:
        project = factories.make_project(session, classes=["cat", "dog"], settings={"overlap": 2, "seed": 3})
        pool = [factories.make_item(session, project=project, meta={"n": n}) for n in range(7)]
        factories.make_item(session, project=project, split="test", class_name="cat")
        pool[5].state = "quarantined"
        pool[6].gold, pool[6].state, pool[6].class_name = True, "done", "dog"
        entries = [
            (0, "ann", "cat", None),
            (0, "bob", "dog", None),
            (0, "cleo", "dog", None),
            (1, "ann", "cat", None),
            (2, "ann", None, "broken"),
            (3, "ann", "cat", None),
            (3, "ann", "dog", None),
            (3, "bob", "dog", None),
        ]
        for item, annotator, class_name, skip in entries:
            labels.store(
                session,
                project,
                [NewLabel(public_id("i", pool[item].id), annotator, class_name=class_name, skip=skip)],  # type: ignore[arg-type]
                utc_now(),
            )
        score_run = factories.make_score_run(session, project=project)
        project.score_run_id = score_run.id
        return project.id


def item_rows(engine: sa.Engine, project_id: int) -> list[Any]:
    deciding = sa.orm.aliased(Label)
    query = (
        sa.select(
            Item.key,
            Item.uri,
            Item.split,
            Item.state,
            Item.class_name,
            Item.shuffle,
            Item.meta,
            Item.gold,
            deciding.annotator,
            deciding.revision,
        )
        .outerjoin(deciding, deciding.id == Item.decided_by)
        .where(Item.project_id == project_id)
        .order_by(Item.key)
    )
    with read_session(engine) as session:
        return [tuple(row) for row in session.execute(query)]


def label_rows(engine: sa.Engine, project_id: int) -> list[Any]:
    query = (
        sa.select(
            Item.key,
            Label.annotator,
            Label.revision,
            Label.current,
            Label.used,
            Label.class_name,
            Label.skip,
            Label.arm,
            Label.created_at,
        )
        .join(Item, Item.id == Label.item_id)
        .where(Label.project_id == project_id)
        .order_by(Label.id)
    )
    with read_session(engine) as session:
        return [tuple(row) for row in session.execute(query)]


def begin(engine: sa.Engine, source: int, with_labels: bool) -> int:
    with write_session(engine) as session:
        project, _ = project_copy.copy(
            session, session.get_one(Project, source), name="copy", labels=with_labels
        )
        assert project.state == "paused"
        return project.id


def test_items_labels_and_decisions(
    engine: sa.Engine, settings: Settings, artifacts: Artifacts, source: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copy_project, "_CHUNK", 3)
    copy = begin(engine, source, True)
    running.run(running.claim(engine, settings, artifacts))
    assert item_rows(engine, copy) == item_rows(engine, source)
    assert label_rows(engine, copy) == label_rows(engine, source)
    with read_session(engine) as session:
        old, new = session.get_one(Project, source), session.get_one(Project, copy)
        assert (new.state, new.classes, new.settings) == ("active", old.classes, old.settings)
        assert (new.labels_used, new.pretext_from_id) == (old.labels_used, source)
        opened = session.scalars(sa.select(Round).where(Round.project_id == copy)).one()
        assert (opened.number, opened.labels_before) == (1, new.labels_used)
        assert session.scalars(sa.select(Job.kind).where(Job.project_id == copy).order_by(Job.id)).all() == [
            "copy_project",
            "score_pool",
        ]


def test_after_a_crash_it_goes_on(
    engine: sa.Engine, settings: Settings, artifacts: Artifacts, source: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copy_project, "_CHUNK", 3)
    copy = begin(engine, source, True)

    def killed(_fraction: float, _message: str) -> None:
        raise KeyboardInterrupt

    first = running.claim(engine, settings, artifacts, killed)
    with pytest.raises(KeyboardInterrupt):
        running.run(first)
    assert len(item_rows(engine, copy)) == 3
    running.hand_back(first)
    running.run(running.claim(engine, settings, artifacts))
    assert item_rows(engine, copy) == item_rows(engine, source)
    assert label_rows(engine, copy) == label_rows(engine, source)


def test_without_labels_all_is_open_again(
    engine: sa.Engine, settings: Settings, artifacts: Artifacts, source: int
) -> None:
    copy = begin(engine, source, False)
    running.run(running.claim(engine, settings, artifacts))
    with read_session(engine) as session:
        states = session.execute(
            sa.select(Item.state, Item.class_name).where(Item.project_id == copy).order_by(Item.key)
        )
        assert [tuple(row) for row in states] == [
            *[("available", None)] * 5,
            ("quarantined", None),
            ("done", "dog"),
            ("available", "cat"),
        ]
        assert session.get_one(Project, copy).labels_used == 0
    assert label_rows(engine, copy) == []


def test_what_was_replaced_is_known_as_such(
    engine: sa.Engine, settings: Settings, artifacts: Artifacts, source: int
) -> None:
    with write_session(engine) as session:
        project = session.get_one(Project, source)
        items = session.scalars(sa.select(Item).where(Item.project_id == source).order_by(Item.key)).all()
        for old, state in ((items[0], "done"), (items[1], "withdrawn")):
            old.state, key = state, old.key
            asides.displace(session, [Displaced(old.id, key)])
            factories.make_item(session, project=project, key=key, content_hash=f"{key}", replaces_id=old.id)
        before, labels_before = len(items) + 2, label_rows(engine, source)
    copy = begin(engine, source, True)
    running.run(running.claim(engine, settings, artifacts))
    with write_session(engine) as session:
        mine = {item.id: item for item in session.scalars(sa.select(Item).where(Item.project_id == copy))}
        assert len(mine) == before
        new = [item for item in mine.values() if item.replaces_id is not None]
        for item, state in zip(sorted(new, key=lambda item: item.key), ("changed", "withdrawn"), strict=True):
            old = mine[item.replaces_id or 0]
            assert (old.key, old.state) == (f"{item.key}#{public_id('i', old.id)}", state)
            assert asides.state_when_restored(old) == "changed"
    assert len(label_rows(engine, copy)) == len(labels_before)


def test_a_key_that_gets_other_bytes_while_it_is_copied(
    engine: sa.Engine,
    settings: Settings,
    artifacts: Artifacts,
    source: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The labels of the one are not those of the other."""
    monkeypatch.setattr(copy_project, "_CHUNK", 3)
    copy = begin(engine, source, True)
    changed: list[int] = []

    def an_import(_fraction: float, _message: str) -> None:
        if changed:
            return
        with write_session(engine) as session:
            project = session.get_one(Project, source)
            first = session.scalars(
                sa.select(Item).where(Item.project_id == source).order_by(Item.id)
            ).first()
            assert first is not None
            key = first.key
            asides.displace(session, [Displaced(first.id, key)])
            new = factories.make_item(session, project=project, key=key, content_hash="other")
            changed.append(new.id)
            factories.make_label(session, item=new, annotator="eve", class_name="cat")

    running.run(running.claim(engine, settings, artifacts, an_import))
    assert changed
    assert "eve" not in {row[1] for row in label_rows(engine, copy)}


def test_a_hash_that_is_told_while_it_is_copied_loses_no_label(
    engine: sa.Engine,
    settings: Settings,
    artifacts: Artifacts,
    source: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between two statements of one transaction PostgreSQL shows what others have stored meanwhile."""
    with write_session(engine) as session:
        session.execute(sa.update(Item).where(Item.project_id == source).values(content_hash=None))
    copy, copied = begin(engine, source, True), copy_project._Copy.items

    def then_a_scoring(self: Any, decided: bool) -> None:
        copied(self, decided)
        mine = sa.update(Item).where(Item.project_id == source)
        self.session.execute(mine.values(content_hash=sa.literal("hash of ") + Item.key))

    monkeypatch.setattr(copy_project._Copy, "items", then_a_scoring)
    running.run(running.claim(engine, settings, artifacts))
    assert len(label_rows(engine, copy)) == len(label_rows(engine, source)) > 0


def test_deleting_takes_the_artifacts_along(
    engine: sa.Engine, settings: Settings, artifacts: Artifacts, source: int
) -> None:
    for name in (
        "heads/1/1.npz",
        "scores/1/arrays/ids.npy",
        "pretext/1/model.safetensors",
        "pretext/2/other",
    ):
        with artifacts.writing(name) as file:
            file.write(b"x")
    with write_session(engine) as session:
        model = session.scalars(sa.select(PretextModel)).one()
        assert (source, model.id) == (1, 1)
        projects.delete(session, session.get_one(Project, source))
    running.run(running.claim(engine, settings, artifacts))
    left = [
        name for name in ("heads/1", "scores/1", "pretext/1", "pretext/2/other") if artifacts.exists(name)
    ]
    assert left == ["pretext/2/other"]
    with read_session(engine) as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Item)) == 0
