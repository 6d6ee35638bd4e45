"""Each revision after the first, run on databases that hold rows in every table: up, down, and up again."""

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.script import ScriptDirectory

import migrations
from service.store import migrate
from service.store.session import make_engine
from tests.databases import PostgresDatabases

FOLDER = Path(str(migrations.__file__)).parent
SCRIPTS = list(reversed(list(ScriptDirectory(str(FOLDER)).walk_revisions())))
STEPS = [(str(script.down_revision), script.revision) for script in SCRIPTS[1:]]
# Once released, a revision is never edited: databases that ran it would not be what the next one expects.
FROZEN = {"0001": "0abc4dac59e35ec5e046a0ede1586723a89ee3e39a00d93dd65238a90adda001"}
ROWS = 2  # a table

Row = dict[str, Any]


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Engine]:
    if request.param == "sqlite":
        engine = make_engine(f"sqlite:///{tmp_path / 'empty.db'}")
        yield engine
        engine.dispose()
        return
    databases: PostgresDatabases = request.getfixturevalue("postgres")
    with databases.fresh(migrated=False) as url:
        engine = make_engine(url)
        yield engine
        engine.dispose()


def reflected(connection: sa.Connection) -> sa.MetaData:
    metadata = sa.MetaData()
    metadata.reflect(connection)
    metadata.remove(metadata.tables["alembic_version"])
    return metadata


def allowed(table: sa.Table) -> dict[str, str]:
    """By column, the first of the values that a check lets it have."""
    found = {}
    for check in table.constraints:
        if isinstance(check, sa.CheckConstraint):
            column = str(check.sqltext).lstrip("(").split()[0].strip('"')
            found[column] = str(check.sqltext).split("'")[1]
    return found


def value_of(column: sa.Column[Any], number: int, values: dict[str, str]) -> Any:
    if column.foreign_keys:
        return number
    if column.name in values:
        return values[column.name]
    kind = column.type
    if isinstance(kind, sa.JSON):
        return (
            {}
            if column.nullable
            or column.name
            not in ("classes", "queues", "events", "lanes", "has", "texts_from", "known_classes")
            else []
        )
    if isinstance(kind, sa.Boolean):
        return number == 1
    if isinstance(kind, sa.Integer):
        return number
    if isinstance(kind, sa.Float):
        return float(number)
    if isinstance(kind, sa.DateTime):
        return datetime(2026, 1, number, tzinfo=UTC)
    return f"{column.name} {number}"


def fill(connection: sa.Connection) -> None:
    """Two rows a table. Numbers are given by hand, so each row refers to the row of its own number."""
    for table in reflected(connection).sorted_tables:
        values = allowed(table)
        rows = [
            {column.name: value_of(column, number, values) for column in table.columns}
            for number in range(1, ROWS + 1)
        ]
        connection.execute(sa.insert(table), rows)


def contents(connection: sa.Connection) -> dict[str, list[Row]]:
    return {
        table.name: [
            dict(row) for row in connection.execute(sa.select(table).order_by(*table.primary_key)).mappings()
        ]
        for table in reflected(connection).sorted_tables
    }


def common(before: list[Row], after: list[Row]) -> tuple[list[Row], list[Row]]:
    """Of two versions of a table, the columns that both have."""
    names = before[0].keys() & after[0].keys()
    return [{name: row[name] for name in names} for row in before], [
        {name: row[name] for name in names} for row in after
    ]


def schema(connection: sa.Connection) -> set[str]:
    """Columns, keys, checks and indexes, but for the defaults of columns, which a downgrade may leave."""
    found = set()
    for table in reflected(connection).sorted_tables:
        found |= {f"{table.name}.{each.name} {each.type} {each.nullable}" for each in table.columns}
        found |= {f"{table.name} {type(each).__name__} {each.name}" for each in table.constraints}
        found |= {
            f"{each.name} {[column.name for column in each.columns]} {each.unique} "
            f"{each.dialect_options[connection.dialect.name].get('where')}"
            for each in table.indexes
        }
    return found


# Columns whose values a revision changes, and changes back.
REWRITTEN = {("0006", "projects"): "settings", ("0012", "projects"): "settings"}


@pytest.mark.parametrize(("before", "after"), STEPS)
def test_rows_of_all_tables_survive_the_way_up_and_down(empty: sa.Engine, before: str, after: str) -> None:
    migrate.upgrade(empty, before)
    with empty.begin() as connection:
        fill(connection)
        rows_before, schema_before = contents(connection), schema(connection)
    assert {len(rows) for rows in rows_before.values()} == {ROWS}

    migrate.upgrade(empty, after)
    with empty.begin() as connection:
        rows_after, schema_after = contents(connection), schema(connection)
    for name in rows_before.keys() & rows_after.keys():
        old, new = common(rows_before[name], rows_after[name])
        for row in (*old, *new):
            row.pop(REWRITTEN.get((after, name), ""), None)
        assert old == new, name

    migrate.downgrade(empty, before)
    with empty.begin() as connection:
        rows_again = contents(connection)
        assert schema(connection) == schema_before
    assert rows_again.keys() == rows_before.keys()
    for name in rows_before.keys() & rows_after.keys():
        old, again = common(rows_before[name], rows_again[name])
        kept = rows_after[name][0].keys()  # what the newer schema has no room for cannot come back
        assert [{key: row[key] for key in row.keys() & kept} for row in old] == [
            {key: row[key] for key in row.keys() & kept} for row in again
        ], name

    migrate.upgrade(empty, after)
    with empty.begin() as connection:
        assert schema(connection) == schema_after
        assert contents(connection).keys() == rows_after.keys()


@pytest.mark.parametrize("revision", sorted(FROZEN))
def test_a_released_revision_is_never_edited(revision: str) -> None:
    (path,) = (FOLDER / "versions").glob(f"{revision}_*.py")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == FROZEN[revision], (
        f"{path.name} has been released: databases have run it as it was. Put the change into a new revision."
    )


def table(connection: sa.Connection, name: str) -> sa.Table:
    return sa.Table(name, sa.MetaData(), autoload_with=connection)


def insert(connection: sa.Connection, name: str, *rows: Row) -> None:
    """What is not given and may not be null gets a value of its type."""
    into = table(connection, name)
    values = allowed(into)
    filled = [
        {
            column.name: value_of(column, number, values)
            for column in into.columns
            if not column.nullable and column.server_default is None
        }
        | row
        for number, row in enumerate(rows, 1)
    ]
    for row in filled:
        connection.execute(sa.insert(into), row)


class TestLanesAndNeeds:
    """Revision 0002."""

    @pytest.fixture
    def old(self, empty: sa.Engine) -> sa.Engine:
        migrate.upgrade(empty, "0001")
        with empty.begin() as connection:
            chosen = {"strategy": {"name": "margin"}, "head": {"name": "finetune", "params": {"steps": 9}}}
            settings = [chosen, {"pretext_task": {"name": "dino"}}]
            insert(connection, "projects", *({"id": n, "settings": s} for n, s in enumerate(settings, 1)))
            insert(connection, "pretext_models", {"id": 7, "project_id": 1, "task": {"name": "simclr"}})
            insert(connection, "score_runs", {"id": 5, "project_id": 1, "pretext_model_id": 7})
            head = {"id": 3, "project_id": 1, "score_run_id": 5, "kind": {"name": "mlp", "params": {}}}
            insert(connection, "heads", head)
            served = sa.update(table(connection, "projects")).where(sa.column("id") == 1)
            connection.execute(served.values(score_run_id=5, head_id=3))
            scoring = {"kind": "score_pool", "queue": "gpu", "payload": {"pretext_model_id": 7}}
            jobs: list[Row] = [
                {"kind": "rank", "project_id": 1},
                {"kind": "train_head", "project_id": 1, "coalesce_key": "train_head:1"},
                {"kind": "train_head", "project_id": 2, "state": "running", "serial_key": "train_head:2"},
                {"kind": "train_pretext", "project_id": 2, "queue": "gpu"},
                scoring | {"project_id": 2, "state": "running"},
                {"kind": "probe_pretext", "project_id": 1},
                {"kind": "delete_artifacts", "project_id": None},
                {"kind": "rank", "project_id": 1, "state": "succeeded", "finished_at": 9.0},
                scoring | {"project_id": 1, "state": "failed", "finished_at": 9.0},
            ]
            queued = {"state": "queued", "queue": "cpu", "payload": {}, "token": 4}
            insert(connection, "jobs", *(queued | job | {"id": n} for n, job in enumerate(jobs, 1)))
            worker = {"id": "w", "queues": ["gpu", "cpu"]}
            insert(connection, "workers", worker, {"id": "x", "queues": ["cpu"]})
            insert(
                connection, "catalogue", {"kind": "head", "name": "finetune"}, {"kind": "head", "name": "mlp"}
            )
        return empty

    def moved(self, engine: sa.Engine, name: str, *columns: str) -> list[tuple[Any, ...]]:
        with engine.begin() as connection:
            found = table(connection, name)
            query = sa.select(*(found.c[column] for column in columns)).order_by(*found.primary_key)
            return [tuple(row) for row in connection.execute(query)]

    def test_jobs_get_their_lane_and_their_needs(self, old: sa.Engine) -> None:
        migrate.upgrade(old, "0002")
        found = [(lane, json.loads(needs)) for lane, needs in self.moved(old, "jobs", "lane", "needs")]
        assert found == [
            ("short", ["head:mlp", "kind:rank", "strategy:margin", "strategy:shortlist"]),
            ("long", ["head:finetune", "kind:train_head"]),
            ("short", ["head:linear", "kind:train_head"]),
            ("long", ["kind:train_pretext", "task:dino"]),
            ("long", ["kind:score_pool", "task:simclr"]),
            ("short", ["kind:probe_pretext", "task:simclr"]),
            ("short", ["kind:delete_artifacts"]),
            ("short", ["kind:rank"]),
            ("long", ["kind:score_pool"]),
        ]
        assert self.moved(old, "workers", "lanes", "has") == [(["long", "short"], []), (["short"], [])]
        assert self.moved(old, "catalogue", "name", "lane") == [("finetune", "long"), ("mlp", None)]

    def test_and_back(self, old: sa.Engine) -> None:
        before = self.moved(old, "jobs", "id", "queue", "state", "token", "coalesce_key", "serial_key")
        workers = self.moved(old, "workers", "id", "queues")
        migrate.upgrade(old, "0002")
        migrate.downgrade(old, "0001")
        assert (
            self.moved(old, "jobs", "id", "queue", "state", "token", "coalesce_key", "serial_key") == before
        )
        assert self.moved(old, "workers", "id", "queues") == workers

    def test_the_number_of_a_deleted_job_is_not_given_again(self, old: sa.Engine) -> None:
        with old.begin() as connection:
            highest = connection.scalar(sa.text("SELECT max(id) FROM jobs"))
            assert highest is not None
            if connection.dialect.name == "postgresql":  # as if it had given the numbers itself
                connection.execute(sa.text(f"SELECT setval(pg_get_serial_sequence('jobs', 'id'), {highest})"))
            connection.execute(sa.text("DELETE FROM jobs WHERE id = :id"), {"id": highest})
        migrate.upgrade(old, "0002")
        with old.begin() as connection:
            numbers = "priority, run_at, created_at, attempts, max_attempts, coalesced, token, progress"
            connection.execute(
                sa.text(
                    f"INSERT INTO jobs (kind, payload, state, cancel_requested, {numbers}) "
                    "VALUES ('rank', '{}', 'queued', false, 0, 0, 0, 0, 3, 0, 0, 0)"
                )
            )
            assert connection.scalar(sa.text("SELECT max(id) FROM jobs")) == highest + 1

    def test_the_new_program_runs_the_old_jobs(self, old: sa.Engine) -> None:
        """The unique keys and checks are still there."""
        migrate.upgrade(old, "0002")
        for job in ({"coalesce_key": "train_head:1"}, {"state": "running", "serial_key": "train_head:2"}):
            with pytest.raises(sa.exc.IntegrityError), old.begin() as connection:
                insert(connection, "jobs", {"id": 99, "kind": "rank", "state": "queued"} | job)
        with pytest.raises(sa.exc.IntegrityError), old.begin() as connection:
            insert(connection, "jobs", {"id": 99, "kind": "rank", "state": "dancing"})


class TestModalities:
    """From 0002 to 0003 and back."""

    @pytest.fixture
    def old(self, empty: sa.Engine) -> sa.Engine:
        migrate.upgrade(empty, "0002")
        with empty.begin() as connection:
            insert(connection, "projects", {"id": 1, "name": "one"})
            insert(connection, "pretext_models", {"id": 4, "project_id": 1})
            insert(connection, "score_runs", {"id": 7, "project_id": 1, "pretext_model_id": 4})
            sides: list[Row] = [{"width": 640, "height": 480}, {"width": None, "height": None}]
            rows: list[Row] = [{"id": n, "project_id": 1, "key": str(n)} for n in (1, 2)]
            insert(connection, "items", *(row | each for row, each in zip(rows, sides, strict=True)))
        return empty

    def rows(self, engine: sa.Engine, name: str, *columns: str) -> list[tuple[Any, ...]]:
        with engine.begin() as connection:
            found = table(connection, name)
            query = sa.select(*(found.c[column] for column in columns)).order_by(*found.primary_key)
            return [tuple(row) for row in connection.execute(query)]

    def test_sizes_become_facts_and_projects_image_projects(self, old: sa.Engine) -> None:
        migrate.upgrade(old, "0003")
        assert self.rows(old, "items", "facts") == [({"width": 640, "height": 480},), (None,)]
        assert self.rows(old, "projects", "modality", "texts_from") == [("image", [])]

    def test_and_back(self, old: sa.Engine) -> None:
        migrate.upgrade(old, "0003")
        with old.begin() as connection:  # provisional: nothing of it has a place in 0002
            insert(connection, "score_runs", {"id": 8, "project_id": 1, "pretext_model_id": None})
            insert(connection, "rankings", {"id": 3, "project_id": 1, "score_run_id": 8})
            insert(connection, "ranked_items", {"ranking_id": 3, "rank": 1, "item_id": 1})
            served = sa.update(table(connection, "projects")).values(score_run_id=8, ranking_id=3)
            connection.execute(served)
            insert(connection, "items", {"id": 3, "project_id": 1, "key": "3", "facts": {"words": 2}})
        migrate.downgrade(old, "0002")
        assert self.rows(old, "items", "width", "height") == [(640, 480), (None, None), (None, None)]
        assert self.rows(old, "score_runs", "id", "pretext_model_id") == [(7, 4)]
        assert self.rows(old, "rankings", "id") == self.rows(old, "ranked_items", "rank") == []
        assert self.rows(old, "projects", "score_run_id", "ranking_id") == [(None, None)]

    def test_the_number_of_a_deleted_score_run_is_not_given_again(self, old: sa.Engine) -> None:
        with old.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(sa.text("SELECT setval(pg_get_serial_sequence('score_runs', 'id'), 7)"))
            connection.execute(sa.text("DELETE FROM score_runs"))
        migrate.upgrade(old, "0003")
        with old.begin() as connection:
            connection.execute(
                sa.text(
                    "INSERT INTO score_runs (project_id, state, last_item_id, items, created_at) "
                    "VALUES (1, 'running', 0, 0, '2026-01-01')"
                )
            )
            assert connection.scalar(sa.text("SELECT max(id) FROM score_runs")) == 8


class TestIdentity:
    """From 0003 to 0004 and back."""

    def rows(self, engine: sa.Engine, name: str, *columns: str) -> list[tuple[Any, ...]]:
        with engine.begin() as connection:
            found = table(connection, name)
            query = sa.select(*(found.c[column] for column in columns)).order_by(*found.primary_key)
            return [tuple(row) for row in connection.execute(query)]

    def test_items_may_be_changed_and_missing_and_withdrawn_on_the_way_back(self, empty: sa.Engine) -> None:
        migrate.upgrade(empty, "0003")
        with empty.begin() as connection:
            insert(connection, "projects", {"id": 1, "name": "one"})
            insert(connection, "items", *({"id": n, "project_id": 1, "key": str(n)} for n in (1, 2, 3)))
            insert(connection, "sources", {"id": 1, "project_id": 1, "added": 3})
        migrate.upgrade(empty, "0004")
        assert self.rows(empty, "items", "id", "stamp", "came_by", "replaces_id") == [
            (number, None, None, None) for number in (1, 2, 3)
        ]
        assert self.rows(empty, "sources", "added", "changed", "missing") == [(3, 0, 0)]
        with empty.begin() as connection:
            items = table(connection, "items")
            for number, state in ((1, "changed"), (2, "missing")):
                connection.execute(sa.update(items).where(items.c.id == number).values(state=state))
        with pytest.raises(sa.exc.IntegrityError), empty.begin() as connection:
            connection.execute(sa.update(table(connection, "items")).values(state="dancing"))
        with pytest.raises(sa.exc.IntegrityError), empty.begin() as connection:
            connection.execute(sa.update(table(connection, "items")).values(split="dancing"))
        migrate.downgrade(empty, "0003")
        assert self.rows(empty, "items", "id", "state") == [
            (1, "withdrawn"),
            (2, "withdrawn"),
            (3, "available"),
        ]
        with pytest.raises(sa.exc.IntegrityError), empty.begin() as connection:
            connection.execute(sa.update(table(connection, "items")).values(state="missing"))


def _settings_after(engine: sa.Engine, before: str, after: str, given: list[Any]) -> list[Any]:
    """The settings of projects after an upgrade, which on the way back are as they were."""

    def settings() -> list[Any]:
        with engine.begin() as connection:
            found = table(connection, "projects")
            return list(connection.scalars(sa.select(found.c.settings).order_by(found.c.id)))

    migrate.upgrade(engine, before)
    with engine.begin() as connection:
        rows = [{"id": n, "name": str(n), "settings": each} for n, each in enumerate(given, 1)]
        insert(connection, "projects", *rows)
    migrate.upgrade(engine, after)
    found = settings()
    migrate.downgrade(engine, before)
    assert settings() == given
    return found


def test_projects_of_before_keep_the_small_backbone(empty: sa.Engine) -> None:
    """From 0005 to 0006 and back: the default of `backbone` changed."""
    found = _settings_after(empty, "0005", "0006", [{}, {"seed": 3}, {"backbone": "resnet18"}])
    assert found == [{"backbone": "small"}, {"seed": 3, "backbone": "small"}, {"backbone": "resnet18"}]


def test_projects_of_before_keep_the_linear_head(empty: sa.Engine) -> None:
    """From 0011 to 0012 and back: the default of `head` changed."""
    mlp: Row = {"name": "mlp", "params": {}}
    linear: Row = {"name": "linear", "params": {}}
    found = _settings_after(empty, "0011", "0012", [{}, {"seed": 3}, {"head": mlp}])
    assert found == [{"head": linear}, {"seed": 3, "head": linear}, {"head": mlp}]


class TestSeveralClasses:
    """From 0008 to 0009 and back."""

    @pytest.fixture
    def upgraded(self, empty: sa.Engine) -> sa.Engine:
        migrate.upgrade(empty, "0008")
        with empty.begin() as connection:
            insert(connection, "projects", {"id": 1, "name": "one"})
        migrate.upgrade(empty, "0009")
        return empty

    def test_projects_of_before_have_one_class_an_item(self, upgraded: sa.Engine) -> None:
        with upgraded.begin() as connection:
            assert connection.scalars(sa.text("SELECT label_kind FROM projects")).all() == ["single"]
        migrate.downgrade(upgraded, "0008")
        with upgraded.begin() as connection:
            assert "label_kind" not in table(connection, "projects").c
            assert connection.scalars(sa.text("SELECT name FROM projects")).all() == ["one"]

    def test_labels_with_several_are_not_thrown_away(self, upgraded: sa.Engine) -> None:
        with upgraded.begin() as connection:
            insert(connection, "projects", {"id": 2, "name": "cells", "label_kind": "multi"})
        with pytest.raises(RuntimeError, match=r"have several: cells\. Export their labels"):
            migrate.downgrade(upgraded, "0008")
        with upgraded.begin() as connection:
            assert connection.scalars(sa.text("SELECT label_kind FROM projects ORDER BY id")).all() == [
                "single",
                "multi",
            ]
