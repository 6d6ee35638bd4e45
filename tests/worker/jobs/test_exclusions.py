"""What rankings leave out: all but one of a group of duplicates, and what the reject head bars."""

from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from service.store.control_arm import control_item_ids
from service.store.project_settings import ProjectSettings
from service.store.session import read_session, write_session
from service.store.tables import BarredItem, Item, Project
from tests import factories
from tests.worker.jobs.scored_projects import Bench, ScoredProject, label, score_run_of, write_scores
from worker.errors import JobFailed
from worker.selection.pool_view import PoolView, Selection
from worker.strategies.random import Random

ALL = {"control_fraction": 0, "strategy": "random"}  # ranks whatever it sees


def ranked(bench: Bench, scored: ScoredProject) -> set[int]:
    return {row.item_id for row in bench.ranking(scored)[1]}


def group(bench: Bench, scored: ScoredProject, representative: int, *copies: int) -> None:
    """By place in the pool."""
    with write_session(bench.engine) as session:
        run = score_run_of(session, scored)
        items = [session.get_one(Item, scored.pool[place]) for place in (representative, *copies)]
        for item in items[1:]:
            factories.make_duplicate(session, score_run=run, item=item, of=items[0])


def set_state(bench: Bench, scored: ScoredProject, places: list[int], state: str) -> None:
    with write_session(bench.engine) as session:
        for place in places:
            session.get_one(Item, scored.pool[place]).state = state


def barred(bench: Bench, scored: ScoredProject) -> dict[int, float]:
    """Place in the pool -> probability."""
    with read_session(bench.engine) as session:
        rows = session.scalars(sa.select(BarredItem).where(BarredItem.project_id == scored.id))
        return {scored.pool.index(row.item_id): row.probability for row in rows}


def test_one_of_a_group_is_ranked(bench: Bench) -> None:
    scored = bench.project(pool=30, settings=ALL)
    group(bench, scored, 4, 7, 9)

    assert bench.rank(scored)["duplicates"] == 2
    assert ranked(bench, scored) == set(scored.pool) - {scored.pool[7], scored.pool[9]}


@pytest.mark.parametrize("place", [4, 9])
def test_none_of_a_group_is_ranked_once_one_is_labeled(bench: Bench, place: int) -> None:
    scored = bench.project(pool=30, settings=ALL)
    group(bench, scored, 4, 7, 9)
    with write_session(bench.engine) as session:
        label(session, scored, [scored.pool[place]])

    bench.rank(scored)

    assert ranked(bench, scored).isdisjoint(scored.pool[place] for place in (4, 7, 9))
    assert len(ranked(bench, scored)) == 27


def test_another_one_stands_in_for_a_representative_that_cannot_be_served(bench: Bench) -> None:
    scored = bench.project(pool=30, settings=ALL)
    group(bench, scored, 4, 7, 9)
    set_state(bench, scored, [4], "withdrawn")

    bench.rank(scored)

    assert scored.pool[7] in ranked(bench, scored)
    assert scored.pool[9] not in ranked(bench, scored)


def test_control_items_are_kept_whatever_they_duplicate(bench: Bench) -> None:
    scored = bench.project(pool=60, settings=ALL | {"control_fraction": 0.1})
    settings = ProjectSettings(control_fraction=0.1)
    with read_session(bench.engine) as session:
        control = control_item_ids(session, scored.id, settings)
    places = [
        scored.pool.index(control[0]),
        *(place for place in range(60) if scored.pool[place] not in control),
    ]
    group(bench, scored, *places[:3])

    bench.rank(scored)

    with read_session(bench.engine) as session:
        assert control_item_ids(session, scored.id, settings) == control
    assert scored.pool[places[1]] in ranked(bench, scored)
    assert len(ranked(bench, scored)) == 60 - len(control) - 1


def test_a_project_may_rank_duplicates_too(bench: Bench) -> None:
    scored = bench.project(pool=30, settings=ALL | {"collapse_duplicates": False})
    group(bench, scored, 4, 7, 9)

    bench.rank(scored)

    assert ranked(bench, scored) == set(scored.pool)


def with_junk(bench: Bench, junk: int = 40, pool: int = 200) -> ScoredProject:
    """The first `junk` items lie far from all classes; 5 are rejected, 60 others labeled."""
    scored = bench.project(pool=pool, settings=ALL | {"round_size": 100})
    rng = np.random.default_rng(3)
    embeddings = rng.normal(size=(3, 8))[scored.truth] * 2 + rng.normal(size=(pool, 8)) * 0.5
    embeddings[:junk] = 6 + rng.normal(size=(junk, 8)) * 0.5
    with write_session(bench.engine) as session:
        score_run_of(session, scored).artifact = "scores/junk/arrays"
        label(session, scored, scored.pool[junk + 20 : junk + 80])
    write_scores(bench.artifacts, "scores/junk/arrays", scored.ids, embeddings.astype(np.float32))
    set_state(bench, scored, list(range(5)), "broken")
    return scored


def test_what_looks_like_the_rejects_is_barred_and_listed(bench: Bench) -> None:
    scored = with_junk(bench)

    result = bench.rank(scored)

    found = barred(bench, scored)
    assert result["barred"] == len(found)
    assert set(found) == set(range(5, 40))
    assert min(found.values()) > 0.3
    assert ranked(bench, scored) == set(scored.pool[40:60] + scored.pool[120:])


def test_without_rejects_nothing_is_barred(bench: Bench) -> None:
    scored = with_junk(bench)
    set_state(bench, scored, list(range(5)), "available")

    assert bench.rank(scored)["barred"] == 0
    assert barred(bench, scored) == {}


def test_every_ranking_judges_again(bench: Bench) -> None:
    scored = with_junk(bench)
    bench.rank(scored)
    with write_session(bench.engine) as session:  # not broken after all
        label(session, scored, scored.pool[:30])

    set_state(bench, scored, [130], "broken")
    bench.rank(scored)

    assert not set(barred(bench, scored)) & set(range(40))


def test_a_ranking_writes_only_what_is_not_as_the_one_before_left_it(bench: Bench) -> None:
    scored = with_junk(bench)
    bench.rank(scored)
    first = barred(bench, scored)
    elsewhere = bench.project(pool=1)
    with write_session(bench.engine) as session:

        def row(place: int) -> BarredItem:
            return session.get_one(BarredItem, scored.pool[place])

        row(5).probability -= 0.005  # so little is not written again
        row(6).probability -= 0.2
        session.delete(row(7))
        factories.make_barred_item(session, item=session.get_one(Item, scored.pool[50]))
        factories.make_barred_item(session, item=session.get_one(Item, elsewhere.pool[0]))

    bench.rank(scored)

    with read_session(bench.engine) as session:
        assert session.get_one(BarredItem, elsewhere.pool[0]).project_id == elsewhere.id
    assert barred(bench, scored) == first | {5: pytest.approx(first[5] - 0.005)}


def test_many_barred_items_are_written_piece_by_piece(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Annotators on SQLite wait for each transaction."""
    monkeypatch.setattr("worker.jobs.rank.exclusions._CHUNK", 10)
    monkeypatch.setattr("worker.jobs.rank.exclusions._SQLITE_PAUSE_S", 0.0)
    scored = with_junk(bench)
    transactions: list[int] = []  # rows of barred items written by each

    def begin(connection: sa.Connection) -> None:
        transactions.append(0)

    def note(_: Any, __: Any, statement: str, parameters: Any, ___: Any, many: bool) -> None:
        if statement.startswith("INSERT INTO barred_items"):
            transactions[-1] += len(parameters) if many else 1

    sa.event.listen(bench.engine, "begin", begin)
    sa.event.listen(bench.engine, "before_cursor_execute", note)

    bench.rank(scored)

    assert [rows for rows in transactions if rows] == [10, 10, 10, 5]
    assert set(barred(bench, scored)) == set(range(5, 40))


def test_when_only_junk_is_left_the_ranking_is_empty(bench: Bench) -> None:
    """`/next-batch` then serves it at random."""
    scored = with_junk(bench)
    with write_session(bench.engine) as session:
        label(session, scored, scored.pool[40:60] + scored.pool[120:])

    bench.rank(scored)

    ranking, rows = bench.ranking(scored)
    assert rows == []
    assert (
        ranking.note == "What is left is barred as probably broken, or a duplicate: it is served at random."
    )
    assert len(barred(bench, scored)) == 35


def test_a_reject_whose_embedding_is_not_finite_is_named(bench: Bench) -> None:
    scored = with_junk(bench)
    embeddings = np.ones((200, 8), np.float32)
    embeddings[2, 1] = np.inf
    with write_session(bench.engine) as session:
        score_run_of(session, scored).artifact = "scores/bad/arrays"
        key = session.get_one(Item, scored.pool[2]).key
    write_scores(bench.artifacts, "scores/bad/arrays", scored.ids, embeddings)

    with pytest.raises(JobFailed, match=f"values of '{key}' that are not finite"):
        bench.rank(scored)


def test_control_items_are_never_barred(bench: Bench) -> None:
    scored = with_junk(bench)
    with write_session(bench.engine) as session:
        project = session.get_one(Project, scored.id)
        project.settings = ALL | {"control_fraction": 1.0}
        control = control_item_ids(session, scored.id, ProjectSettings.model_validate(project.settings))
    assert set(control) == set(scored.pool)

    assert bench.rank(scored)["barred"] == 0


def test_those_seen_stand_for_the_items_of_their_group(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[int, float] = {}

    class Watching(Random):
        def select(self, pool: PoolView, n: int, rng: np.random.Generator) -> Selection:
            assert pool.stands_for is not None
            seen.update(enumerate(pool.stands_for.tolist()))
            return super().select(pool, n, rng)

    monkeypatch.setattr("worker.jobs.rank.strategies", lambda: {"random": Watching})
    scored = bench.project(pool=30, settings=ALL)
    group(bench, scored, 4, 7, 9)  # 4 is seen
    group(bench, scored, 10, 11, 12, 13)  # 12 is labeled, and seen
    set_state(bench, scored, [20], "withdrawn")
    with write_session(bench.engine) as session:
        label(session, scored, [scored.pool[12]])

    bench.rank(scored)

    shown = [place for place in range(30) if place not in (7, 9, 10, 11, 13)]
    assert {shown[row]: items for row, items in seen.items() if items != 1} == {4: 3, 12: 4}
    assert len(seen) == len(shown)
