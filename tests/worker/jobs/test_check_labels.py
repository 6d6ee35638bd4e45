from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.labeling import labels, suspects
from service.labeling.labels import NewLabel
from service.pool import queues
from service.store import pipeline
from service.store.ids import public_id
from service.store.session import read_session, write_session
from service.store.tables import Head, Item, Job, LabelCheck, Project, Suspect, utc_now
from tests.worker import running
from tests.worker.jobs.scored_projects import CLASSES, Bench, ScoredProject, label


def check(bench: Bench, scored: ScoredProject) -> dict[str, Any]:
    """The result of one check; what else waits is dropped."""
    with write_session(bench.engine) as session:
        session.execute(sa.delete(Job))
        job_id = pipeline.queue_check_labels(session, session.get_one(Project, scored.id))
    running.run(running.claim(bench.engine, bench.settings, bench.artifacts))
    with read_session(bench.engine) as session:
        return session.get_one(Job, job_id).result or {}


def vote(session: Session, scored: ScoredProject, item_id: int, **by: str) -> None:
    """Labels through the service, one an annotator."""
    entries = [
        NewLabel(public_id("i", item_id), annotator, class_name=name) for annotator, name in by.items()
    ]
    labels.store(session, session.get_one(Project, scored.id), entries, utc_now())


def wrong_class(scored: ScoredProject, item_id: int) -> str:
    return CLASSES[(CLASSES.index(scored.true_class(item_id)) + 1) % 3]


def suspected(session: Session) -> list[int]:
    return list(session.scalars(sa.select(Suspect.item_id).order_by(Suspect.quality)))


def test_mislabeled_items_are_suspects(bench: Bench) -> None:
    scored = bench.project()
    wrong = scored.pool[10:13]
    with write_session(bench.engine) as session:
        label(session, scored, scored.pool[:60])
        for item_id in wrong:
            session.get_one(Item, item_id).class_name = wrong_class(scored, item_id)
    result = check(bench, scored)
    assert (result["items"], result["shared_items"], result["changed"]) == (60, 0, 0)
    with read_session(bench.engine) as session:
        assert set(suspected(session)[:3]) == set(wrong)
        worst = session.scalars(sa.select(Suspect).order_by(Suspect.quality)).first()
        assert worst is not None
        assert worst.class_name == wrong_class(scored, worst.item_id)
        assert worst.suggested_class == scored.true_class(worst.item_id)
        assert worst.quality < 0.2 < 0.8 < worst.probability
        assert session.get_one(LabelCheck, scored.id).agreement is None


def test_a_confirmed_suspect_is_one_no_more(bench: Bench) -> None:
    scored = bench.project()
    odd = scored.pool[0]
    with write_session(bench.engine) as session:
        for item_id in scored.pool[1:61]:
            name = scored.true_class(item_id)
            vote(session, scored, item_id, ann=name)
        vote(session, scored, odd, ann=wrong_class(scored, odd))
    check(bench, scored)
    with write_session(bench.engine) as session:
        assert odd in suspected(session)
        project = session.get_one(Project, scored.id)
        assert suspects.queue(session, project, count=1, annotator=None).reopened == 1
        assert odd not in [found.suspect.item_id for found in suspects.page(session, project, None, 10)]
        vote(session, scored, odd, bob=wrong_class(scored, odd))
        assert session.get_one(Item, odd).state == "done"
        others = scored.pool[1:30]  # they agree there, so CROWDLAB trusts them
        queues.add(session, project, [public_id("i", item_id) for item_id in others], "bob")
        for item_id in others:
            vote(session, scored, item_id, bob=scored.true_class(item_id))
    check(bench, scored)
    with read_session(bench.engine) as session:
        assert odd not in suspected(session)


def test_crowdlab_overrules_the_majority_and_the_head_learns_it(bench: Bench) -> None:
    scored = bench.project(settings={"overlap": 2, "retrain_min_interval_s": 0, "round_size": 1000})
    rng = np.random.default_rng(0)
    disputed = scored.pool[:4]
    with write_session(bench.engine) as session:
        project = session.get_one(Project, scored.id)
        project.labels_used = 0
        for item_id in scored.pool[4:80]:
            name = scored.true_class(item_id)
            sloppy = str(rng.choice(CLASSES))
            vote(session, scored, item_id, good=name, fair=name, sloppy=sloppy)
        for item_id in disputed:  # `sloppy` and `careless` outvote `good`
            wrong = wrong_class(scored, item_id)
            vote(session, scored, item_id, sloppy=wrong, good=scored.true_class(item_id), careless=wrong)
        for item_id in scored.pool[80:110]:
            vote(session, scored, item_id, good=scored.true_class(item_id), careless=str(rng.choice(CLASSES)))
        session.execute(sa.delete(Job))
        assert [session.get_one(Item, one).class_name for one in disputed] == [
            wrong_class(scored, one) for one in disputed
        ]
    bench.train_head(scored)
    result = check(bench, scored)
    assert result["changed"] >= len(disputed)
    with read_session(bench.engine) as session:
        assert [session.get_one(Item, one).class_name for one in disputed] == [
            scored.true_class(one) for one in disputed
        ]
        stored = session.get_one(LabelCheck, scored.id)
        quality = {name: found["quality"] for name, found in stored.annotators.items()}
        assert min(quality["good"], quality["fair"]) > max(quality["sloppy"], quality["careless"])
        assert 0.4 < (stored.agreement or 0) < 0.95
        assert session.scalars(sa.select(Job.kind).where(Job.state == "queued")).all() == ["train_head"]
    running.run(running.claim(bench.engine, bench.settings, bench.artifacts))
    with read_session(bench.engine) as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Head)) == 2


def test_too_few_labels_to_judge_by(bench: Bench) -> None:
    scored = bench.project()
    with write_session(bench.engine) as session:
        label(session, scored, scored.pool[:10])
    assert "20 labeled items" in check(bench, scored)["missing"]
