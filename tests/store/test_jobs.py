"""The job queue on both databases. Times are set by moving rows in time, not by sleeping."""

import threading
from typing import Any

import pytest
import sqlalchemy as sa

from service.store import jobs
from service.store.session import make_engine, read_session, write_session
from service.store.tables import Job
from tests.factories import make_project

LANES = ("short", "long")


def enqueue(
    engine: sa.Engine, kind: str = "work", payload: dict[str, Any] | None = None, **options: Any
) -> int:
    with write_session(engine) as session:
        return jobs.enqueue(session, kind, payload or {}, **options)


def claim(engine: sa.Engine, worker: str = "w1", lease_s: float = 30.0) -> jobs.ClaimedJob | None:
    return jobs.claim(engine, worker, LANES, lease_s)


def claimed(engine: sa.Engine, worker: str = "w1") -> jobs.ClaimedJob:
    job = claim(engine, worker)
    assert job is not None
    return job


def succeed(engine: sa.Engine, job: jobs.ClaimedJob, result: dict[str, Any] | None = None) -> None:
    with write_session(engine) as session:
        jobs.succeed(session, job, result)


def row(engine: sa.Engine, job_id: int) -> Job:
    with read_session(engine) as session:
        return session.get_one(Job, job_id)


def move(engine: sa.Engine, job_id: int, **values: Any) -> None:
    with write_session(engine) as session:
        session.execute(sa.update(Job).where(Job.id == job_id).values(**values))


def lose_lease(engine: sa.Engine, job_id: int) -> None:
    move(engine, job_id, lease_until=Job.lease_until - 1000)


def count(engine: sa.Engine, state: str) -> int:
    with read_session(engine) as session:
        return session.scalars(sa.select(sa.func.count()).where(Job.state == state)).one()


def test_one_job_runs_once(engine: sa.Engine) -> None:
    job_id = enqueue(engine, "rank", payload={"n": 7}, lane="long")
    job = claimed(engine)
    assert (job.id, job.kind, job.lane, job.payload, job.attempts) == (job_id, "rank", "long", {"n": 7}, 1)
    assert claim(engine) is None
    succeed(engine, job, {"items": 3})
    done = row(engine, job_id)
    assert (done.state, done.result, done.progress) == ("succeeded", {"items": 3}, 1.0)
    assert done.started_at is not None
    assert done.finished_at is not None
    assert done.started_at <= done.finished_at
    assert claim(engine) is None


def test_a_job_belongs_to_the_transaction_that_queues_it(engine: sa.Engine) -> None:
    with sa.orm.Session(engine) as session:
        jobs.enqueue(session, "work", {})
        session.rollback()
    assert claim(engine) is None


def test_claims_come_by_priority_then_time(engine: sa.Engine) -> None:
    late = enqueue(engine)
    urgent = enqueue(engine, priority=5)
    early = enqueue(engine)
    move(engine, early, run_at=1.0)
    assert [claimed(engine).id for _ in range(3)] == [urgent, early, late]


def test_only_the_served_lanes(engine: sa.Engine) -> None:
    enqueue(engine, lane="long")
    assert jobs.claim(engine, "w1", ("short",), 30) is None
    assert jobs.claim(engine, "w1", ("short", "long"), 30) is not None


def test_a_lane_by_the_kind_unless_one_is_given(engine: sa.Engine) -> None:
    kinds = {"train_pretext": "long", "score_pool": "long", "rank": "short", "train_head": "short"}
    assert {kind: row(engine, enqueue(engine, kind)).lane for kind in kinds} == kinds
    assert row(engine, enqueue(engine, "rank", lane="long")).lane == "long"


def test_a_claim_takes_only_what_the_worker_can_do(engine: sa.Engine) -> None:
    foo = enqueue(engine, needs=["head:foo"])
    foo_and_bar = enqueue(engine, needs=["task:bar", "head:foo"])
    plain = enqueue(engine)
    other_kind = enqueue(engine, "dance", priority=9)
    assert row(engine, foo_and_bar).needs == ("head:foo", "kind:work", "task:bar")

    def take(*has: str) -> int | None:
        job = jobs.claim(engine, "w1", LANES, 30.0, {*has})
        return job.id if job is not None else None

    assert take() is None
    assert take("head:foo", "task:bar") is None  # its program does not know the kind
    assert take("kind:work", "task:bar") == plain
    assert take("kind:work", "task:bar") is None
    assert take("kind:work", "head:foo", "strategy:margin") == foo
    assert take("kind:work", "head:foo", "task:bar") == foo_and_bar
    assert take("kind:work", "kind:dance") == other_kind


def test_a_running_job_learns_which_others_come_first(engine: sa.Engine) -> None:
    """Ready, in its lane, of higher priority, and such that its worker could do them."""
    running = enqueue(engine, priority=-2)
    job = claimed(engine)
    assert job.id == running

    def first(*has: str) -> bool:
        with read_session(engine) as session:
            return jobs.others_first(session, job, {"kind:work", *has})

    enqueue(engine, priority=-2)
    enqueue(engine, lane="long")
    enqueue(engine, delay_s=60)
    assert not first()
    enqueue(engine, needs=["head:foo"])
    assert not first()
    assert first("head:foo")
    enqueue(engine, priority=-1)
    assert first()
    with read_session(engine) as session:
        assert jobs.others_first(session, job)


def test_names_of_plug_ins_may_be_odd(engine: sa.Engine) -> None:
    for name in ("a, b", 'quo"te', "ünï\ncode", "%", "']"):
        job_id = enqueue(engine, needs=[f"head:{name}"])
        assert row(engine, job_id).needs == (f"head:{name}", "kind:work")
        assert jobs.claim(engine, "w1", LANES, 30.0, {"kind:work"}) is None
        taken = jobs.claim(engine, "w1", LANES, 30.0, {"kind:work", f"head:{name}"})
        assert taken is not None
        assert (taken.id, taken.needs) == (job_id, (f"head:{name}", "kind:work"))


def test_a_lost_job_waits_for_a_worker_that_has_what_it_needs(engine: sa.Engine) -> None:
    job_id = enqueue(engine, needs=["head:foo"])
    claimed(engine)
    lose_lease(engine, job_id)
    assert jobs.claim(engine, "w1", LANES, 30.0, {"kind:work"}) is None
    assert row(engine, job_id).state == "running"
    with write_session(engine) as session:
        jobs.request_cancel(session, job_id)
    assert jobs.claim(engine, "w1", LANES, 30.0, {"kind:work"}) is None  # but anybody ends it
    assert row(engine, job_id).state == "cancelled"


def test_coalescing_takes_the_newest_lane_and_needs(engine: sa.Engine) -> None:
    keys: dict[str, Any] = {"coalesce_key": "k", "serial_key": "k"}
    first = enqueue(engine, needs=["head:foo"], **keys)
    assert enqueue(engine, needs=["head:bar"], lane="long", **keys) == first
    assert jobs.claim(engine, "w1", ("short",), 30) is None
    job = jobs.claim(engine, "w1", ("long",), 30, {"kind:work", "head:bar"})
    assert job is not None
    assert (job.id, job.lane, job.needs) == (first, "long", ("head:bar", "kind:work"))
    second = enqueue(engine, **keys)  # back in the short lane, while the long one runs it
    assert second != first
    assert jobs.claim(engine, "w1", ("short",), 30) is None  # the serial key is busy, across lanes
    succeed(engine, job)
    assert claimed(engine).id == second


def test_handed_back_a_job_waits_for_another_worker(engine: sa.Engine) -> None:
    job_id = enqueue(engine, needs=["head:foo"], max_attempts=1)
    job = claimed(engine)
    jobs.hand_back(engine, job, ["head:bar"], "long", "This worker knows no head 'bar'.")
    after = row(engine, job_id)
    assert (after.state, after.attempts, after.lane) == ("queued", 0, "long")
    assert (after.needs, after.message) == (("head:bar", "kind:work"), "This worker knows no head 'bar'.")
    with pytest.raises(jobs.LeaseLost):
        jobs.hand_back(engine, job, [], "short", "again")


def test_unfinished_is_what_this_worker_could_do_or_others_do(engine: sa.Engine) -> None:
    def unfinished(*has: str) -> bool:
        with read_session(engine) as session:
            return jobs.unfinished(session, LANES, {*has})

    job_id = enqueue(engine, needs=["head:foo"])
    assert not unfinished("kind:work")
    assert unfinished("kind:work", "head:foo")
    job = claimed(engine)
    assert unfinished("kind:work")  # what it does may queue more
    lose_lease(engine, job.id)
    assert not unfinished("kind:work")
    assert row(engine, job_id).state == "running"


def test_thousands_of_jobs_that_nobody_can_do_cost_an_idle_worker_nothing(sqlite_url: str) -> None:
    """The different needs are found along the index; no job of the backlog is read."""
    engine = make_engine(sqlite_url)
    with write_session(engine) as session:
        values = {"kind": "work", "payload": {}, "run_at": 0.0, "created_at": 0.0}
        needs = [("kind:work", f"head:{number % 5}") for number in range(5_000)]
        session.execute(sa.insert(Job), [values | {"needs": each} for each in needs])
    steps = 0

    def count_steps() -> int:
        nonlocal steps
        steps += 1
        return 0

    with engine.connect() as connection:  # the pool's only one: the claim gets the same
        driver = connection.connection.driver_connection
        assert driver is not None
        driver.set_progress_handler(count_steps, 100)  # is called every 100 instructions
    assert jobs.claim(engine, "w1", ("short",), 30.0, {"kind:work"}) is None
    idle, steps = steps, 0
    assert jobs.claim(engine, "w1", ("short",), 30.0, {"kind:work", "head:3"}) is not None
    assert idle * 100 < 5_000
    assert steps > idle  # and the handler was there
    engine.dispose()


def test_a_delayed_job_waits(engine: sa.Engine) -> None:
    job_id = enqueue(engine, delay_s=60)
    assert claim(engine) is None
    move(engine, job_id, run_at=Job.run_at - 61)
    assert claimed(engine).id == job_id


def test_a_burst_coalesces_and_the_newest_payload_wins(engine: sa.Engine) -> None:
    ids = {enqueue(engine, payload={"n": n}, coalesce_key="k", priority=-n) for n in range(10)}
    assert len(ids) == 1
    stored = row(engine, ids.pop())
    assert (stored.payload, stored.coalesced, stored.priority) == ({"n": 9}, 9, 0)


def test_coalescing_keeps_the_sooner_start(engine: sa.Engine) -> None:
    job_id = enqueue(engine, coalesce_key="k", delay_s=100)
    assert claim(engine) is None
    assert enqueue(engine, coalesce_key="k") == job_id
    assert enqueue(engine, coalesce_key="k", delay_s=100) == job_id
    assert claimed(engine).id == job_id


def test_jobs_without_a_key_never_merge(engine: sa.Engine) -> None:
    assert enqueue(engine) != enqueue(engine)
    first, second = claimed(engine), claimed(engine)
    jobs.fail(engine, first, "no luck")
    jobs.fail(engine, second, "no luck")
    assert count(engine, "queued") == 2


def test_what_arrives_during_the_run_causes_one_more(engine: sa.Engine) -> None:
    enqueue(engine, payload={"n": 1}, coalesce_key="k", serial_key="k")
    first = claimed(engine)
    again = {enqueue(engine, payload={"n": n}, coalesce_key="k", serial_key="k") for n in (2, 3)}
    assert len(again) == 1
    assert claim(engine) is None  # the serial key is busy
    succeed(engine, first)
    second = claimed(engine)
    assert (second.id, second.payload) == (again.pop(), {"n": 3})
    succeed(engine, second)
    assert claim(engine) is None


def test_serial_jobs_run_one_at_a_time_and_let_others_pass(engine: sa.Engine) -> None:
    first, second = enqueue(engine, serial_key="s"), enqueue(engine, serial_key="s")
    other = enqueue(engine)
    job = claimed(engine)
    assert job.id == first
    assert claimed(engine).id == other
    assert claim(engine) is None
    succeed(engine, job)
    assert claimed(engine).id == second


def test_min_interval_counts_from_the_last_start(engine: sa.Engine) -> None:
    with write_session(engine) as session:
        ours, theirs = make_project(session).id, make_project(session).id
    interval: dict[str, Any] = {"min_interval_s": 50}
    first = enqueue(engine, project_id=ours, **interval)  # none has run: at once
    job = claimed(engine)
    assert job.id == first
    enqueue(engine, "other kind", project_id=ours, **interval)
    enqueue(engine, project_id=theirs, **interval)
    assert {claimed(engine).project_id, claimed(engine).project_id} == {ours, theirs}
    second = enqueue(engine, project_id=ours, **interval)
    started_at = row(engine, first).started_at
    assert started_at is not None
    assert row(engine, second).run_at == pytest.approx(started_at + 50)
    assert claim(engine) is None


def test_heartbeat_renews_and_reports(engine: sa.Engine) -> None:
    job_id = enqueue(engine)
    job = claimed(engine)
    before = row(engine, job_id).lease_until
    jobs.heartbeat(engine, job, 500, 0.25, "a quarter")
    after = row(engine, job_id)
    assert before is not None
    assert after.lease_until is not None
    assert after.lease_until > before + 400
    assert (after.progress, after.message) == (0.25, "a quarter")
    jobs.heartbeat(engine, job, 500)
    assert row(engine, job_id).message == "a quarter"


def test_a_lost_job_is_taken_over_and_the_frozen_worker_is_fenced_off(engine: sa.Engine) -> None:
    job_id = enqueue(engine)
    frozen = claimed(engine, "frozen")
    assert claim(engine, "other") is None
    lose_lease(engine, job_id)
    taken = claimed(engine, "other")
    assert (taken.id, taken.attempts, taken.token) == (job_id, 2, frozen.token + 1)

    with pytest.raises(jobs.LeaseLost):
        jobs.heartbeat(engine, frozen, 30)
    with sa.orm.Session(engine) as session:
        make_project(session, name="output of the frozen worker")
        with pytest.raises(jobs.LeaseLost):
            jobs.fence(session, frozen)
    with pytest.raises(jobs.LeaseLost):
        succeed(engine, frozen)
    for end in (jobs.release, jobs.mark_cancelled):
        with pytest.raises(jobs.LeaseLost):
            end(engine, frozen)
    for retry in (True, False):
        with pytest.raises(jobs.LeaseLost):
            jobs.fail(engine, frozen, "woke up", retry=retry)

    assert row(engine, job_id).worker == "other"
    with write_session(engine) as session:
        jobs.fence(session, taken)
        jobs.succeed(session, taken)
    assert row(engine, job_id).state == "succeeded"
    with pytest.raises(jobs.LeaseLost), write_session(engine) as session:
        jobs.fence(session, taken)


def test_a_lost_job_goes_before_queued_ones(engine: sa.Engine) -> None:
    lost = enqueue(engine)
    claimed(engine)
    enqueue(engine, priority=9)
    lose_lease(engine, lost)
    assert claimed(engine).id == lost


def test_a_job_that_kills_its_workers_is_parked(engine: sa.Engine) -> None:
    job_id = enqueue(engine, max_attempts=2)
    for _ in range(2):
        assert claimed(engine).id == job_id
        lose_lease(engine, job_id)
    assert claim(engine) is None
    parked = row(engine, job_id)
    assert (parked.state, parked.attempts, parked.error) == ("failed", 2, jobs.SILENT)
    assert parked.finished_at is not None


@pytest.mark.parametrize("end", ["killed", "failed", "released"])
def test_a_job_that_gets_on_is_not_given_up(end: str, engine: sa.Engine) -> None:
    job_id = enqueue(engine, max_attempts=3)
    for _ in range(5):
        job = claimed(engine)
        with write_session(engine) as session:
            jobs.fence(session, job)
            jobs.progressed(session, job)
        if end == "killed":
            lose_lease(engine, job_id)
        elif end == "failed":
            jobs.fail(engine, job, "no room")
            move(engine, job_id, run_at=0)
        else:
            jobs.release(engine, job)
    assert claimed(engine).attempts == (1 if end == "released" else 2)


def test_retries_back_off_and_end(engine: sa.Engine) -> None:
    job_id = enqueue(engine, max_attempts=3)
    waits = []
    for attempt in (1, 2, 3):
        move(engine, job_id, run_at=0.0)
        job = claimed(engine)
        assert job.attempts == attempt
        jobs.fail(engine, job, f"attempt {attempt}\0 failed")
        after = row(engine, job_id)
        assert after.error == f"attempt {attempt} failed"
        assert after.started_at is not None
        if after.state == "queued":
            waits.append(after.run_at - after.started_at)
    assert waits[0] >= jobs.RETRY_DELAY_S
    assert waits[1] >= 2 * jobs.RETRY_DELAY_S
    assert row(engine, job_id).state == "failed"
    assert claim(engine) is None


def test_a_later_success_clears_the_error(engine: sa.Engine) -> None:
    job_id = enqueue(engine)
    jobs.fail(engine, claimed(engine), "once")
    move(engine, job_id, run_at=0.0)
    succeed(engine, claimed(engine))
    assert (row(engine, job_id).state, row(engine, job_id).error) == ("succeeded", None)


def test_no_retry_where_a_person_must_act(engine: sa.Engine) -> None:
    job_id = enqueue(engine)
    jobs.fail(engine, claimed(engine), "There are no items. Import some.", retry=False)
    assert (row(engine, job_id).state, row(engine, job_id).error) == (
        "failed",
        "There are no items. Import some.",
    )


@pytest.mark.parametrize("again", [lambda e, j: jobs.fail(e, j, "bad luck"), jobs.release])
def test_a_retry_gives_way_to_the_same_job_queued_meanwhile(engine: sa.Engine, again: Any) -> None:
    first = enqueue(engine, payload={"n": 1}, coalesce_key="k")
    job = claimed(engine)
    second = enqueue(engine, payload={"n": 2}, coalesce_key="k")
    again(engine, job)
    assert row(engine, first).state == "cancelled"
    assert row(engine, first).message == jobs.REPLACED
    assert claimed(engine).id == second


def test_a_new_wish_gives_a_failing_job_all_its_attempts_again(engine: sa.Engine) -> None:
    job_id = enqueue(engine, coalesce_key="k", max_attempts=3)
    jobs.fail(engine, claimed(engine), "bad luck")
    assert enqueue(engine, coalesce_key="k", max_attempts=3) == job_id
    assert claimed(engine).attempts == 1


def test_release_hands_back_at_once_and_counts_nothing(engine: sa.Engine) -> None:
    job_id = enqueue(engine, max_attempts=1)
    for _ in range(3):
        job = claimed(engine)
        assert (job.id, job.attempts) == (job_id, 1)
        jobs.release(engine, job)
    assert row(engine, job_id).state == "queued"


def test_cancel_a_queued_job(engine: sa.Engine) -> None:
    job_id = enqueue(engine)
    with write_session(engine) as session:
        jobs.request_cancel(session, job_id)
    assert row(engine, job_id).state == "cancelled"
    assert row(engine, job_id).finished_at is not None
    assert claim(engine) is None


def test_cancel_a_running_job(engine: sa.Engine) -> None:
    job_id = enqueue(engine)
    job = claimed(engine)
    with write_session(engine) as session:
        jobs.request_cancel(session, job_id)
    assert row(engine, job_id).state == "running"
    with pytest.raises(jobs.Cancelled):
        jobs.heartbeat(engine, job, 30)
    jobs.mark_cancelled(engine, job)
    assert row(engine, job_id).state == "cancelled"


@pytest.mark.parametrize(
    "end", [lambda e, j: jobs.fail(e, j, "bad luck"), jobs.release, lambda e, j: lose_lease(e, j.id)]
)
def test_a_cancelled_job_never_starts_again(engine: sa.Engine, end: Any) -> None:
    job_id = enqueue(engine)
    job = claimed(engine)
    with write_session(engine) as session:
        jobs.request_cancel(session, job_id)
    end(engine, job)
    assert claim(engine) is None
    assert row(engine, job_id).state == "cancelled"


def test_cancelling_what_ended_changes_nothing(engine: sa.Engine) -> None:
    job_id = enqueue(engine)
    succeed(engine, claimed(engine))
    with write_session(engine) as session:
        jobs.request_cancel(session, job_id)
    assert (row(engine, job_id).state, row(engine, job_id).cancel_requested) == ("succeeded", False)


def test_unfinished_counts_what_waits_for_later(engine: sa.Engine) -> None:
    def unfinished() -> bool:
        with read_session(engine) as session:
            return jobs.unfinished(session, LANES)

    assert not unfinished()
    job_id = enqueue(engine, delay_s=1000)
    assert unfinished()
    move(engine, job_id, run_at=0.0)
    job = claimed(engine)
    assert unfinished()
    succeed(engine, job)
    assert not unfinished()


def test_purge_deletes_only_what_ended_long_ago(engine: sa.Engine) -> None:
    old, recent = enqueue(engine), enqueue(engine)
    for _ in range(2):
        succeed(engine, claimed(engine))
    waiting = enqueue(engine)
    move(engine, old, finished_at=Job.finished_at - 100)
    move(engine, waiting, created_at=0.0)
    assert jobs.purge(engine, older_than_s=50) == 1
    with read_session(engine) as session:
        assert set(session.scalars(sa.select(Job.id))) == {recent, waiting}


def test_racing_claimers_share_the_jobs_without_doubles(engine: sa.Engine) -> None:
    wanted = {enqueue(engine, serial_key=f"s{n % 7}") for n in range(42)}
    got: list[int] = []
    running: set[str | None] = set()
    overlaps: list[str | None] = []
    guard = threading.Lock()

    def work(name: str) -> None:
        while count(engine, "queued"):
            job = claim(engine, name)
            if job is None:
                continue  # all that is left waits for a serial key
            with guard:
                if job.serial_key in running:
                    overlaps.append(job.serial_key)
                running.add(job.serial_key)
                got.append(job.id)
            with guard:
                running.discard(job.serial_key)
            succeed(engine, job)

    threads = [threading.Thread(target=work, args=(f"w{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert sorted(got) == sorted(wanted)
    assert overlaps == []


def test_racing_enqueuers_and_claimers_never_lose_a_wish(engine: sa.Engine) -> None:
    """Every wish is followed by a run that starts after it, however enqueue and claim interleave."""
    wishes = 30
    seen: list[int] = []

    def wish() -> None:
        for n in range(wishes):
            enqueue(engine, payload={"n": n}, coalesce_key="k", serial_key="k")

    thread = threading.Thread(target=wish)
    thread.start()
    while thread.is_alive() or count(engine, "queued"):
        job = claim(engine)
        if job is not None:
            seen.append(job.payload["n"])
            succeed(engine, job)
    thread.join()
    assert seen == sorted(set(seen))
    assert seen[-1] == wishes - 1
