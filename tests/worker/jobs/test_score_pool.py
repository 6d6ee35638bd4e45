"""Job score_pool: every item once, whatever the shards; copied where known; switched at once."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
import torch
from PIL import Image
from torch import Tensor, nn

from service.content.reader import content_hash_of
from service.errors import ItemNotFetched
from service.settings import Settings
from service.store.artifacts import Artifacts
from service.store.marks import Marks
from service.store.pipeline import queue_score_pool
from service.store.scores import load_scores
from service.store.session import read_session, write_session
from service.store.tables import (
    Duplicate,
    Item,
    Job,
    PretextModel,
    Project,
    Score,
    ScoreRun,
    ScoreShard,
)
from tests.factories import make_item, make_label, make_pretext_model, make_project
from tests.pictures import write_pictures
from tests.worker.running import claim, hand_back, run
from worker.errors import JobFailed
from worker.jobs import score_pool
from worker.jobs.context import JobContext
from worker.jobs.score_pool import percentiles_among
from worker.jobs.specs import spec_of, store_net
from worker.modalities.text import Text
from worker.models.nets import new_net
from worker.models.spec import input_of
from worker.pretext import PretextTask
from worker.scoring.pool_scoring import OpenPoolScoring
from worker.scoring.score import Scored, score
from worker.scoring.scored_items import ScoredItems, open_sketches

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
CONFIG = {"image_size": 12, "seed": 0, "pretrained": False}


class Crash(BaseException):
    pass


class Scoring:
    """A project over pictures, with a pretext model that was never trained: losses differ all the same."""

    def __init__(self, engine: sa.Engine, settings: Settings, artifacts: Artifacts, folder: Path) -> None:
        self.engine, self.artifacts, self.folder = engine, artifacts, folder
        self.settings = settings.model_copy(update={"shard_size": 4})
        with write_session(engine) as session:
            self.project = make_project(session)
            self.model = make_pretext_model(
                session, project=self.project, config=CONFIG, artifact="m.safetensors"
            )
        store_net(new_net(spec_of(self.model)), self.model, artifacts, "m.safetensors")

    def add(self, count: int, first: int = 0, split: str = "pool", **values: Any) -> None:
        write_pictures(self.folder, count, first)
        with write_session(self.engine) as session:
            project = session.get_one(Project, self.project.id)
            for number in range(first, first + count):
                path = self.folder / f"{number:05}.png"
                make_item(
                    session,
                    project=project,
                    key=path.name,
                    uri=str(path),
                    split=split,
                    **{"content_hash": content_hash_of(path.read_bytes())} | values,
                )

    def claim(self, **settings: Any) -> JobContext:
        with write_session(self.engine) as session:
            session.execute(sa.delete(Job))
            queue_score_pool(session, session.get_one(Project, self.project.id), self.model.id)
        return self.claim_again(**settings)

    def claim_again(self, **settings: Any) -> JobContext:
        return claim(self.engine, self.settings.model_copy(update=settings), self.artifacts)

    def run(self, **settings: Any) -> ScoredItems:
        run(self.claim(**settings))
        return self.served()

    def served(self) -> ScoredItems:
        with read_session(self.engine) as session:
            project = session.get_one(Project, self.project.id)
            return ScoredItems.open(
                self.artifacts, str(session.get_one(ScoreRun, project.score_run_id).artifact)
            )

    def score_runs(self) -> list[ScoreRun]:
        with read_session(self.engine) as session:
            return list(session.scalars(sa.select(ScoreRun).order_by(ScoreRun.id)))

    def items(self) -> list[Item]:
        with read_session(self.engine) as session:
            query = sa.select(Item).where(Item.project_id == self.project.id).order_by(Item.id)
            return list(session.scalars(query))

    def queued(self) -> set[str]:
        with read_session(self.engine) as session:
            return set(session.scalars(sa.select(Job.kind).where(Job.state == "queued")))


@pytest.fixture
def scoring(engine: sa.Engine, settings: Settings, artifacts: Artifacts, tmp_path: Path) -> Scoring:
    return Scoring(engine, settings, artifacts, tmp_path / "pool")


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many items each shard sent through the network."""
    counts: list[int] = []
    compute = OpenPoolScoring.compute

    def counting(self: OpenPoolScoring, loaded: Any) -> Any:
        counts.append(len(loaded.to_do))
        return compute(self, loaded)

    monkeypatch.setattr(OpenPoolScoring, "compute", counting)
    return counts


def test_losses_and_embeddings_of_both_splits_and_one_switch(scoring: Scoring) -> None:
    scoring.add(10)
    scoring.add(3, first=10, split="test")

    found = scoring.run()

    assert found.ids.tolist() == [item.id for item in scoring.items()]
    assert found.losses.shape == (13,)
    assert found.losses.dtype == np.float32
    assert found.embeddings.shape == (13, 192)
    assert found.embeddings.dtype == np.float16
    assert len(set(found.losses.tolist())) == 13
    (run_row,) = scoring.score_runs()
    assert (run_row.state, run_row.items, run_row.dimensions) == ("complete", 13, 192)
    assert run_row.histogram is not None
    assert sum(run_row.histogram["counts"]) == 10
    assert scoring.queued() == {"rank"}
    with read_session(scoring.engine) as session:
        scores = session.scalars(sa.select(Score).order_by(Score.item_id)).all()
    assert [score.item_id for score in scores] == found.ids.tolist()
    assert np.allclose([score.pretext_loss for score in scores], found.losses)
    in_pool = sorted(scores[:10], key=lambda score: score.pretext_loss)
    assert [score.percentile for score in in_pool] == pytest.approx([5 + 10 * place for place in range(10)])


@on_sqlite
def test_the_cut_into_shards_and_batches_changes_nothing(
    scoring: Scoring, monkeypatch: pytest.MonkeyPatch
) -> None:
    scoring.add(13)
    whole = scoring.run(shard_size=100)
    with write_session(scoring.engine) as session:
        session.execute(sa.delete(ScoreRun))
    monkeypatch.setattr("worker.scoring.pool_scoring._BATCH", {"cpu": 2})
    cut = scoring.run(shard_size=3)

    assert np.abs(whole.losses - cut.losses).max() < 1e-5
    assert np.abs(whole.embeddings.astype(float) - cut.embeddings).max() < 1e-3


def test_after_a_crash_only_missing_shards_are_scored(
    scoring: Scoring, computed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    scoring.add(14)
    expected = scoring.run(shard_size=100)
    with write_session(scoring.engine) as session:
        session.execute(sa.delete(ScoreRun))
    record, recorded = score_pool._record, 0

    def record_and_crash(*args: Any) -> None:
        nonlocal recorded
        record(*args)
        recorded += 1
        if recorded == 2:
            raise Crash

    monkeypatch.setattr(score_pool, "_record", record_and_crash)
    first = scoring.claim()
    with pytest.raises(Crash):
        run(first)
    monkeypatch.setattr(score_pool, "_record", record)
    hand_back(first)
    scoring.add(2, first=14)
    with read_session(scoring.engine) as session:
        stored = set(session.scalars(sa.select(ScoreShard.artifact)))
    computed.clear()
    run(scoring.claim_again())

    assert sum(computed) == 14 - 8 + 2 + first_shard_gap(scoring)
    with read_session(scoring.engine) as session:
        assert stored < set(session.scalars(sa.select(ScoreShard.artifact)))
    assert len(scoring.score_runs()) == 1
    assert np.allclose(scoring.served().losses[:14], expected.losses, atol=1e-5)
    assert len(scoring.served().ids) == 16


def first_shard_gap(scoring: Scoring) -> int:
    """Shards are multiples of 4 in item ids; the project's first item need not begin one."""
    return (scoring.items()[0].id - 1) % 4


@on_sqlite
def test_a_crash_while_storing_the_scores_does_not_double_them(
    scoring: Scoring, monkeypatch: pytest.MonkeyPatch
) -> None:
    scoring.add(9)
    monkeypatch.setattr(score_pool, "_ROWS_A_TRANSACTION", 4)
    loaded = 0

    def load_and_crash(*args: Any) -> None:
        nonlocal loaded
        loaded += 1
        if loaded == 3:
            raise Crash
        load_scores(*args)

    monkeypatch.setattr(score_pool, "load_scores", load_and_crash)
    first = scoring.claim()
    with pytest.raises(Crash):
        run(first)
    monkeypatch.setattr(score_pool, "load_scores", load_scores)
    hand_back(first)
    run(scoring.claim_again())

    with read_session(scoring.engine) as session:
        assert session.scalar(sa.select(sa.func.count(Score.item_id))) == 9


def crash_when_all_is_scored(scoring: Scoring) -> None:
    """All shards are stored, and the job waits for another try."""

    def crash(*_: Any) -> None:
        raise Crash

    job = scoring.claim()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(score_pool, "_switch", crash)
        with pytest.raises(Crash):
            run(job)
    hand_back(job)


@on_sqlite
@pytest.mark.parametrize("first", [2, 3, 4, 5])
def test_items_that_come_before_another_try_belong_to_it(scoring: Scoring, first: int) -> None:
    """The last of the stored shards is done again where it has room."""
    scoring.add(first)
    crash_when_all_is_scored(scoring)
    scoring.add(3, first=first)
    run(scoring.claim_again())
    assert scoring.served().ids.tolist() == [item.id for item in scoring.items()]
    assert len(scoring.score_runs()) == 1


@on_sqlite
def test_another_try_with_a_newer_model_begins_anew(scoring: Scoring) -> None:
    scoring.add(9)
    crash_when_all_is_scored(scoring)
    with write_session(scoring.engine) as session:
        project = session.get_one(Project, scoring.project.id)
        config = CONFIG | {"seed": 1}
        newer = make_pretext_model(session, project=project, config=config, artifact="n.safetensors")
        store_net(new_net(spec_of(newer)), newer, scoring.artifacts, "n.safetensors")
        queue_score_pool(session, project, newer.id)
        number = newer.id
    (begun,) = scoring.score_runs()
    run(scoring.claim_again())
    served = scoring.served()
    (found,) = scoring.score_runs()
    assert found.pretext_model_id == number
    with read_session(scoring.engine) as session:
        assert session.get_one(Project, scoring.project.id).score_run_id == found.id
        deletion = session.scalars(sa.select(Job).where(Job.kind == "delete_artifacts")).one()
    assert deletion.payload == {"folders": [f"scores/{begun.id}"]}
    scoring.model = newer
    assert np.allclose(scoring.run().losses, served.losses, atol=1e-5)


@on_sqlite
def test_items_that_come_while_the_pool_is_scored_are_scored_next(
    scoring: Scoring, monkeypatch: pytest.MonkeyPatch
) -> None:
    scoring.add(5)
    consolidate = score_pool._consolidate

    def come_late(*given: Any) -> Any:
        scoring.add(2, first=5)
        return consolidate(*given)

    with monkeypatch.context() as patch:
        patch.setattr(score_pool, "_consolidate", come_late)
        assert len(scoring.run().ids) == 5
    with write_session(scoring.engine) as session:
        session.execute(sa.delete(Job).where(Job.kind != "score_pool"))
    run(scoring.claim_again())
    assert len(scoring.served().ids) == 7
    with read_session(scoring.engine) as session:
        waiting = sa.select(Job).where(Job.kind == "score_pool", Job.state == "queued")
        assert session.scalars(waiting).all() == []


@on_sqlite
def test_after_a_re_import_only_new_items_are_scored(scoring: Scoring, computed: list[int]) -> None:
    scoring.add(9)
    before = scoring.run()
    scoring.add(2, first=9)
    computed.clear()
    after = scoring.run()

    assert sum(computed) == 2
    assert len(after.ids) == 11
    assert (after.losses[:9] == before.losses).all()
    assert (after.embeddings[:9] == before.embeddings).all()


@on_sqlite
def test_however_often_items_come_two_score_runs_are_stored(scoring: Scoring) -> None:
    scoring.add(3)
    scoring.run()
    assert "remove_score_runs" not in scoring.queued()
    for number in range(3, 7):
        scoring.add(1, first=number)
        expected = scoring.run()
        with write_session(scoring.engine) as session:
            session.execute(sa.delete(Job).where(Job.kind == "rank"))
        run(scoring.claim_again())
        folders = {path.name for path in (scoring.settings.data_dir / "artifacts/scores").iterdir()}
        assert folders == {str(each.id) for each in scoring.score_runs()[-2:]}
    assert (scoring.served().losses == expected.losses).all()
    assert len(scoring.served().ids) == 7
    assert [each.state for each in scoring.score_runs()] == ["removed"] * 3 + ["complete"] * 2


def test_the_quickest_way_is_looked_for_by_how_many_are_not_copied(
    scoring: Scoring, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []
    monkeypatch.setattr(OpenPoolScoring, "_tune", lambda self, items: told.append(items))
    scoring.add(5)
    scoring.run()
    scoring.add(2, first=5)
    scoring.run()
    assert told == [5, 2]


def test_equal_items_of_the_models_own_project_are_copied(scoring: Scoring, computed: list[int]) -> None:
    scoring.add(6)
    theirs = scoring.run()
    with write_session(scoring.engine) as session:
        scoring.project = make_project(session, pretext_from_id=scoring.project.id)
    scoring.add(2, first=20)
    scoring.add(5, first=1)
    computed.clear()
    mine = scoring.run()

    assert sum(computed) == 2
    assert (mine.losses[2:] == theirs.losses[1:]).all()
    assert (mine.embeddings[2:] == theirs.embeddings[1:]).all()


@on_sqlite
def test_what_cannot_be_decoded_is_quarantined_and_left_out(scoring: Scoring) -> None:
    scoring.add(5, content_hash=None)
    (scoring.folder / "00001.png").write_bytes(b"x")
    (scoring.folder / "00002.png").unlink()

    found = scoring.run()

    items = scoring.items()
    assert found.ids.tolist() == [items[0].id, items[3].id, items[4].id]
    assert [item.state for item in items] == [
        "available",
        "quarantined",
        "quarantined",
        "available",
        "available",
    ]
    assert "supported format" in str(items[1].quarantine_reason)
    assert "no such file" in str(items[2].quarantine_reason)
    assert (items[0].width, items[0].height) == (12, 12)
    assert len(str(items[0].content_hash)) == 32


@on_sqlite
def test_labels_that_were_there_before_train_a_head(scoring: Scoring) -> None:
    scoring.add(3)
    with write_session(scoring.engine) as session:
        session.get_one(Project, scoring.project.id).labels_used = 10
    scoring.run()

    assert scoring.queued() == {"rank", "train_head"}


@on_sqlite
@pytest.mark.parametrize("count", [0, 2])
def test_an_empty_pool_says_so(count: int, scoring: Scoring) -> None:
    scoring.add(count, split="test")

    with pytest.raises(JobFailed, match="pool is empty"):
        scoring.run()


@on_sqlite
def test_a_pool_of_which_nothing_can_be_read_says_so(scoring: Scoring) -> None:
    scoring.add(2)
    for path in scoring.folder.iterdir():
        path.write_bytes(b"x")

    with pytest.raises(JobFailed, match="No item of the pool can be read"):
        scoring.run()


@on_sqlite
@pytest.mark.parametrize("away", ["folder emptied", "root gone", "no roots", "no access"])
def test_what_may_be_fetched_another_time_is_not_quarantined(
    away: str, scoring: Scoring, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scoring.add(5)
    settings: dict[str, Any] = {}
    if away == "folder emptied":
        for path in scoring.folder.iterdir():
            path.unlink()
    elif away == "root gone":
        settings["source_roots"] = (str(scoring.folder),)
        scoring.folder.rename(tmp_path / "elsewhere")
    elif away == "no roots":
        settings["source_roots"] = ()
    else:

        def fail(path: Path) -> bytes:
            raise TimeoutError(110, "Connection timed out")

        monkeypatch.setattr(Path, "read_bytes", fail)

    with pytest.raises(ItemNotFetched, match=r"00000\.png.*SHORTLIST_SOURCE_ROOTS.*withdraw") as raised:
        scoring.run(**settings)
    assert raised.value.status >= 500  # so that the job is tried again
    assert {item.state for item in scoring.items()} == {"available"}


@on_sqlite
def test_a_model_that_is_gone_says_so(scoring: Scoring) -> None:
    scoring.add(2)
    context = scoring.claim()
    with write_session(scoring.engine) as session:
        session.execute(sa.update(PretextModel).values(artifact=None))

    with pytest.raises(JobFailed, match="pretrain again"):
        run(context)


@on_sqlite
def test_a_batch_that_does_not_fit_into_memory_is_halved(
    scoring: Scoring, monkeypatch: pytest.MonkeyPatch
) -> None:
    scoring.add(5)
    expected = scoring.run().losses
    fits = 2

    def full(net: nn.Module, task: PretextTask, batch: Tensor, layer: str | None = None) -> Scored:
        if len(batch) > fits:
            raise torch.OutOfMemoryError
        return score(net, task, batch, layer)

    monkeypatch.setattr("worker.scoring.pool_scoring.score", full)
    monkeypatch.setattr("worker.scoring.pool_scoring.folded", lambda net, run: net)  # it runs four items
    monkeypatch.setattr(score_pool, "earlier_runs", lambda *_: [])
    assert np.allclose(scoring.run().losses, expected, atol=1e-5)

    fits = 0
    with pytest.raises(JobFailed, match=r"smaller items \(image_size\) or a smaller backbone"):
        scoring.run()


@on_sqlite
def test_losses_that_differ_in_their_last_digit_only(
    scoring: Scoring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of equal images in batches of different sizes."""
    scoring.add(4)
    score_batch = OpenPoolScoring._score

    def nearly_equal(self: OpenPoolScoring, items: torch.Tensor, halves: torch.Tensor) -> Scored:
        found = score_batch(self, items, halves)
        found.losses[:] = 1.0
        found.losses[0] = float(np.nextafter(np.float32(1), np.float32(2)))
        return found

    monkeypatch.setattr(OpenPoolScoring, "_score", nearly_equal)

    assert len(scoring.run().losses) > 0


@on_sqlite
def test_an_item_without_a_number_is_named(scoring: Scoring, monkeypatch: pytest.MonkeyPatch) -> None:
    scoring.add(3)
    score_batch = OpenPoolScoring._score

    def broken(self: OpenPoolScoring, items: torch.Tensor, halves: torch.Tensor) -> Scored:
        found = score_batch(self, items, halves)
        found.losses[-1] = torch.nan
        return found

    monkeypatch.setattr(OpenPoolScoring, "_score", broken)

    with pytest.raises(JobFailed, match=r"no number for the item '0000\d\.png'"):
        scoring.run()


def copy_pictures(folder: Path, pairs: dict[int, int]) -> None:
    for to, number in pairs.items():
        (folder / f"{to:05}.png").write_bytes((folder / f"{number:05}.png").read_bytes())


def duplicates(scoring: Scoring) -> dict[str, str]:
    """Of the run that is served: key -> key of the representative, without suffix."""
    copy, of = sa.orm.aliased(Item), sa.orm.aliased(Item)
    with read_session(scoring.engine) as session:
        project = session.get_one(Project, scoring.project.id)
        pairs = session.execute(
            sa.select(copy.key, of.key)
            .join(Duplicate, Duplicate.item_id == copy.id)
            .join(of, of.id == Duplicate.duplicate_of_id)
            .where(Duplicate.score_run_id == project.score_run_id)
        )
        return {pair[0][:5]: pair[1][:5] for pair in pairs}


def test_duplicates_are_grouped_in_the_pool_only(scoring: Scoring) -> None:
    scoring.add(9, content_hash=None)
    scoring.add(2, first=9, split="test", content_hash=None)
    nearly = Image.fromarray(np.roll(np.asarray(Image.open(scoring.folder / "00006.png")), 1, axis=1))
    nearly.save(scoring.folder / "00008.png")
    copy_pictures(scoring.folder, {4: 1, 5: 1, 9: 2})
    scoring.run()

    assert duplicates(scoring) == {"00004": "00001", "00005": "00001", "00008": "00006"}


def test_a_labeled_item_represents_its_group(scoring: Scoring) -> None:
    scoring.add(6, content_hash=None)
    copy_pictures(scoring.folder, {2: 0, 4: 0})
    with write_session(scoring.engine) as session:
        labeled = session.scalars(sa.select(Item).where(Item.key == "00002.png")).one()
        make_label(session, item=labeled)
    scoring.run()

    assert duplicates(scoring) == {"00000": "00002", "00004": "00002"}


def test_a_new_score_run_groups_anew(scoring: Scoring) -> None:
    scoring.add(5, content_hash=None)
    scoring.run()
    assert duplicates(scoring) == {}
    scoring.add(2, first=5, content_hash=None)
    copy_pictures(scoring.folder, {6: 3})
    scoring.run()

    assert duplicates(scoring) == {"00006": "00003"}


@on_sqlite
def test_thumbnails_of_known_items_are_copied(scoring: Scoring) -> None:
    scoring.add(5)
    scoring.run()
    before = open_sketches(scoring.artifacts, str(scoring.score_runs()[-1].artifact))
    scoring.add(1, first=5)
    scoring.run()
    after = open_sketches(scoring.artifacts, str(scoring.score_runs()[-1].artifact))

    assert after.shape == (6, 12 * 12 + 2)
    assert (after[:5] == before).all()
    assert len({row.tobytes() for row in after}) == 6


def test_numbers_stay_numbers() -> None:
    """PT4AL's reference code sorts losses as text, where 1.9e-05 comes after 9.1."""
    losses = np.array([9.1, 1.9e-05, 0.3], np.float32)

    percentiles = percentiles_among(losses, losses)

    assert percentiles[1] < percentiles[2] < percentiles[0]
    assert np.argsort(-percentiles).tolist() == [0, 2, 1]


def test_equal_losses_share_a_percentile() -> None:
    pool = np.ones(5, np.float32)

    assert percentiles_among(pool, np.array([0, 1, 2], np.float32)).tolist() == [0, 50, 100]


@on_sqlite
def test_out_of_fold_each_half_is_scored_by_the_network_of_the_other(scoring: Scoring) -> None:
    scoring.add(9)
    by_one = scoring.run()
    with write_session(scoring.engine) as session:
        model = session.get_one(PretextModel, scoring.model.id)
        model.config = CONFIG | {"out_of_fold": 2}
        session.execute(sa.delete(ScoreRun))
    other = new_net(spec_of(scoring.model))
    torch.nn.init.normal_(other.get_parameter("head.weight"))
    store_net(other, scoring.model, scoring.artifacts, "m-other.safetensors")
    by_two = scoring.run()

    halves = np.array([item.shuffle % 2 for item in scoring.items()])
    assert 0 < halves.sum() < 9
    assert (by_two.embeddings == by_one.embeddings).all()
    assert np.allclose(by_two.losses[halves == 1], by_one.losses[halves == 1], atol=1e-5)
    assert (np.abs(by_two.losses - by_one.losses)[halves == 0] > 1e-3).all()


@on_sqlite
def test_the_hardest_words_of_texts_are_marked_and_copied(scoring: Scoring, computed: list[int]) -> None:
    scoring.folder.mkdir()
    made = Text(tokens=8, windows=3)
    with write_session(scoring.engine) as session:
        model = session.get_one(PretextModel, scoring.model.id)
        model.task = {"name": "masked_tokens", "params": {}}
        model.config = {"input": input_of(made), "seed": 0, "pretrained": False, "layer": None}
        project = session.get_one(Project, scoring.project.id)
        project.modality = "text"
        texts = ["Ärger, one", " ".join(f"W{number}" for number in range(90)), "x " * 20, "a b c d e f"]
        for number, text in enumerate(texts):
            path = scoring.folder / f"{number}.txt"
            path.write_text(text, encoding="utf-8")
            hashed = content_hash_of(path.read_bytes())
            make_item(session, project=project, key=path.name, uri=str(path), content_hash=hashed)
    store_net(new_net(spec_of(model)), model, scoring.artifacts, "m.safetensors")
    found = scoring.run(shard_size=2)

    def marked() -> list[list[str]]:
        marks = Marks(scoring.artifacts)
        artifact = scoring.score_runs()[-1].artifact
        return [
            [text[start:end] for start, end in marks.of(artifact, item)]
            for text, item in zip(texts, found.ids.tolist(), strict=True)
        ]

    words = marked()
    assert len(words[0]) == 1
    assert words[0][0] in ("Ärger", ",", "one")
    assert len(words[1]) > 1
    assert all(word in texts[1].split() for word in words[1])
    assert Marks(scoring.artifacts).of(scoring.score_runs()[-1].artifact, 10**6) == []
    scoring.run(shard_size=2)
    assert computed == [2, 2, 0, 0]
    assert marked() == words
