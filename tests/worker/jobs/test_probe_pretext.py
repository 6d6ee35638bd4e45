"""Job probe_pretext: the labels judge the embeddings that are served, and what follows from it."""

from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from PIL import Image

from service.store import pipeline
from service.store.session import read_session, write_session
from service.store.tables import Job, PretextModel, Project, Ranking, ScoreRun
from tests.factories import (
    make_item,
    make_label,
    make_pretext_model,
    make_project,
    make_ranking,
    make_score_run,
)
from tests.worker import running
from tests.worker.jobs.scored_projects import Bench, write_scores
from worker.errors import GivesWay
from worker.jobs.specs import is_untrained

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

CONFIG = {"image_size": 12, "seed": 0, "pretrained": False, "epochs": 2}


class Labeled:
    """A project of dark and bright pictures; `knows` says whether the served embeddings tell them apart.

    The first items are labeled: by chance, but for the last `selected` of them, which the embeddings cannot tell
    apart. The `test` last items are a test split.
    """

    def __init__(
        self,
        bench: Bench,
        folder: Path,
        labels: int,
        knows: bool,
        epochs: int = 2,
        selected: int = 0,
        by: str = "shortlist",
        test: int = 0,
        control_fraction: float = 0,
    ) -> None:
        self.bench = bench
        folder.mkdir()
        rng = np.random.default_rng(0)
        self.bright = np.arange(labels + 20 + test) % 2
        with write_session(bench.engine) as session:
            settings = {"control_fraction": control_fraction}
            project = make_project(session, classes=["dark", "bright"], settings=settings)
            ids, chosen = [], []
            for number, bright in enumerate(self.bright):
                pixels = rng.integers(0, 120, (12, 12, 3), np.uint8) + 120 * bright
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
                item = make_item(session, project=project, uri=str(folder / f"{number}.png"))
                ids.append(item.id)
                if number < labels - selected:
                    make_label(session, item=item, class_name=project.classes[bright])
                elif number < labels:
                    chosen.append((item, project.classes[bright]))
                elif number >= labels + 20:
                    item.split, item.class_name = "test", project.classes[bright]
            model = make_pretext_model(session, project=project, config=CONFIG | {"epochs": epochs})
            score_run = make_score_run(
                session, project=project, pretext_model=model, artifact="scores/1/arrays"
            )
            ranking = make_ranking(
                session, project=project, score_run=score_run, strategy={"name": by, "params": {}}
            )
            for item, class_name in chosen:
                make_label(session, item=item, class_name=class_name, arm="selected", ranking_id=ranking.id)
            project.score_run_id, project.labels_used = score_run.id, labels
            self.project_id = project.id
        noise = rng.normal(size=(len(ids), 8)).astype(np.float32)
        known = 8.0 * self.bright * knows
        known[labels - selected : labels] = 4
        noise[:, 0] += known
        write_scores(bench.artifacts, "scores/1/arrays", np.array(ids), noise)

    def run(self, kind: str) -> None:
        context = running.claim(self.bench.engine, self.bench.settings, self.bench.artifacts)
        assert context.job.kind == kind
        running.run(context)

    def rank(self) -> None:
        with write_session(self.bench.engine) as session:
            pipeline.queue_rank(session, session.get_one(Project, self.project_id))
        self.run("rank")

    def queued(self) -> set[str]:
        """Kinds of jobs, less the similarity index: the first ranking queues it, whatever the gate says."""
        with read_session(self.bench.engine) as session:
            return set(session.scalars(sa.select(Job.kind).where(Job.state == "queued"))) - {"index_items"}

    def gate(self) -> dict[str, object]:
        with read_session(self.bench.engine) as session:
            return session.scalars(sa.select(ScoreRun.gate)).one() or {}

    def models(self) -> list[PretextModel]:
        with read_session(self.bench.engine) as session:
            return list(session.scalars(sa.select(PretextModel).order_by(PretextModel.id)))

    def ranking(self) -> tuple[str, str | None]:
        with read_session(self.bench.engine) as session:
            found = session.get_one(Ranking, session.get_one(Project, self.project_id).ranking_id)
        return found.strategy["name"], found.note


def test_good_embeddings_go(bench: Bench, tmp_path: Path) -> None:
    labeled = Labeled(bench, tmp_path / "pool", labels=60, knows=True)
    labeled.rank()
    labeled.run("probe_pretext")

    assert labeled.gate()["verdict"] == "go"
    assert labeled.gate()["linear"] == {"trained": 1, "untrained": 1, "raw": 1}
    assert labeled.queued() == set()
    labeled.rank()
    assert labeled.ranking() == ("shortlist", None)
    assert labeled.queued() == set()  # nothing new to judge


def test_it_gives_way_to_rankings_but_not_for_ever(bench: Bench, tmp_path: Path) -> None:
    labeled = Labeled(bench, tmp_path / "pool", labels=60, knows=True)
    labeled.rank()
    for _ in range(3):
        context = running.claim(bench.engine, bench.settings, bench.artifacts)
        assert context.job.kind == "probe_pretext"
        with write_session(bench.engine) as session:
            pipeline.queue_rank(session, session.get_one(Project, labeled.project_id))
        with pytest.raises(GivesWay):
            running.run(context)
        running.hand_back(context)
        labeled.run("rank")
    context = running.claim(bench.engine, bench.settings, bench.artifacts)
    with write_session(bench.engine) as session:
        pipeline.queue_rank(session, session.get_one(Project, labeled.project_id))
    running.run(context)
    assert labeled.gate()["verdict"] == "go"


def test_after_a_no_go_ranking_is_random_and_the_untrained_backbone_scores(
    bench: Bench, tmp_path: Path
) -> None:
    labeled = Labeled(bench, tmp_path / "pool", labels=60, knows=False)
    labeled.rank()
    assert labeled.ranking()[0] == "shortlist"
    labeled.run("probe_pretext")

    assert labeled.gate()["verdict"] == "no-go"
    first, second = labeled.models()
    assert (second.state, is_untrained(second), is_untrained(first)) == ("ready", True, False)
    assert second.version == first.version + 1
    assert "in place of pretext model" in second.diagnostics["note"]
    assert labeled.queued() == {"rank", "score_pool"}
    labeled.run("rank")
    strategy, note = labeled.ranking()
    assert strategy == "random"
    assert "no-go: On 60 labeled items" in str(note)

    labeled.run("score_pool")
    for kind in ("rank", "train_head", "rank"):
        labeled.run(kind)
    assert labeled.ranking() == ("shortlist", None)
    labeled.run("probe_pretext")
    with read_session(bench.engine) as session:
        served = session.get_one(ScoreRun, session.get_one(Project, labeled.project_id).score_run_id)
    assert served.pretext_model_id == second.id
    assert served.gate is not None
    assert served.gate["verdict"] == "go"
    assert set(served.gate["linear"]) == {"trained", "raw"}


@pytest.mark.parametrize("running", [True, False])
def test_a_newer_model_that_is_about_to_score_is_not_put_aside_for_the_untrained_one(
    bench: Bench, tmp_path: Path, running: bool
) -> None:
    labeled = Labeled(bench, tmp_path / "pool", labels=60, knows=False)
    labeled.rank()
    with write_session(bench.engine) as session:
        project = session.get_one(Project, labeled.project_id)
        newer = make_pretext_model(session, project=project, config=CONFIG)
        job = session.get_one(Job, pipeline.queue_score_pool(session, project, newer.id))
        job.state = "running" if running else "queued"
        job.lane = "elsewhere"
    labeled.run("probe_pretext")

    assert labeled.gate()["verdict"] == "no-go"
    assert len(labeled.models()) == 2
    with read_session(bench.engine) as session:
        scorings = session.scalars(sa.select(Job).where(Job.kind == "score_pool")).all()
    assert [job.payload for job in scorings] == [{"pretext_model_id": newer.id}]
    assert "rank" in labeled.queued()


def test_an_untrained_backbone_that_is_no_good_leaves_random(bench: Bench, tmp_path: Path) -> None:
    labeled = Labeled(bench, tmp_path / "pool", labels=60, knows=False, epochs=0)
    labeled.rank()
    labeled.run("probe_pretext")

    assert labeled.gate()["verdict"] == "no-go"
    assert labeled.queued() == {"rank"}
    assert len(labeled.models()) == 1


def test_too_few_labels_say_so(bench: Bench, tmp_path: Path) -> None:
    labeled = Labeled(bench, tmp_path / "pool", labels=39, knows=True)
    labeled.rank()
    assert labeled.queued() == set()
    with write_session(bench.engine) as session:
        pipeline.queue_probe_pretext(session, session.get_one(Project, labeled.project_id))
    labeled.run("probe_pretext")

    assert labeled.gate()["verdict"] == "not enough labels"
    assert labeled.queued() == set()


def test_pictures_that_are_gone_are_left_out(bench: Bench, tmp_path: Path) -> None:
    labeled = Labeled(bench, tmp_path / "pool", labels=60, knows=True)
    for path in (tmp_path / "pool").iterdir():
        path.unlink()
    labeled.rank()
    labeled.run("probe_pretext")

    assert labeled.gate()["verdict"] == "not enough labels"


def test_selected_labels_teach_but_do_not_judge(bench: Bench, tmp_path: Path) -> None:
    """90 control items that the embeddings tell apart, 30 selected ones that they do not."""
    labeled = Labeled(bench, tmp_path / "pool", labels=120, knows=True, selected=30, control_fraction=0.75)
    labeled.rank()
    labeled.run("probe_pretext")

    found = labeled.gate()
    assert (found["judged_on"], found["items"], found["labels"]) == ("control", 90, 120)
    assert "taught by 120 labels" in str(found["reason"])
    assert found["verdict"] == "go"


def test_control_items_find_embeddings_that_know_nothing(bench: Bench, tmp_path: Path) -> None:
    labeled = Labeled(bench, tmp_path / "pool", labels=75, knows=False, selected=30, control_fraction=0.6)
    labeled.rank()
    labeled.run("probe_pretext")

    assert (labeled.gate()["judged_on"], labeled.gate()["verdict"]) == ("control", "no-go")


def test_without_enough_unbiased_labels_there_is_no_verdict(bench: Bench, tmp_path: Path) -> None:
    """45 of the control items were labeled because a strategy chose them, as imported labels may be."""
    labeled = Labeled(bench, tmp_path / "pool", labels=80, knows=False, selected=45, control_fraction=0.8)
    labeled.rank()
    labeled.run("probe_pretext")

    found = labeled.gate()
    assert (found["verdict"], found["labels"], found["items"]) == ("not enough labels", 80, 35)
    assert "among the 80 labeled items so far there are 35" in str(found["reason"])
    assert labeled.queued() == set()


def test_labels_selected_at_random_judge(bench: Bench, tmp_path: Path) -> None:
    labeled = Labeled(bench, tmp_path / "pool", labels=80, knows=False, selected=70, by="random")
    labeled.rank()
    labeled.run("probe_pretext")

    assert (labeled.gate()["judged_on"], labeled.gate()["items"]) == ("random", 80)
    assert labeled.gate()["verdict"] == "no-go"


@pytest.mark.parametrize(("knows", "verdict"), [(True, "go"), (False, "no-go")])
def test_a_test_split_judges(bench: Bench, tmp_path: Path, knows: bool, verdict: str) -> None:
    labeled = Labeled(bench, tmp_path / "pool", labels=60, knows=knows, selected=5, test=50)
    labeled.rank()
    labeled.run("probe_pretext")

    found = labeled.gate()
    assert (found["judged_on"], found["items"], found["labels"]) == ("test", 50, 60)
    assert found["verdict"] == verdict
