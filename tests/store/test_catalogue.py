import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import sqlalchemy as sa

from service.store import catalogue
from service.store.catalogue import Announcement
from service.store.session import read_session, write_session
from service.store.tables import CatalogueEntry, Worker, utc_now
from tests.factories import make_catalogue_entry, make_worker

MARGIN = Announcement("strategy", "margin", "The closest call first.", {"type": "object"})
LONG_AGO = utc_now() - timedelta(days=2)


def announced(engine: sa.Engine) -> dict[str, str]:
    with read_session(engine) as session:
        return {entry.name: entry.help for entry in session.scalars(sa.select(CatalogueEntry))}


def test_announcing_again_replaces(engine: sa.Engine) -> None:
    newer = Announcement("strategy", "margin", "The narrowest margin first.", {"type": "object"})
    for each in (MARGIN, newer):
        with write_session(engine) as session:
            catalogue.announce(session, [each])
    assert announced(engine) == {"margin": "The narrowest margin first."}


def test_workers_that_start_together_announce_together(engine: sa.Engine) -> None:
    entries = [Announcement("strategy", f"s{number}", "Help.", {"type": "object"}) for number in range(20)]
    start = threading.Barrier(6)

    def announce(order: int) -> None:
        start.wait()
        with write_session(engine) as session:
            catalogue.announce(session, entries[::order])

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(announce, [1, -1] * 3))
    assert set(announced(engine)) == {entry.name for entry in entries}


def test_what_no_live_worker_has_goes(engine: sa.Engine) -> None:
    with write_session(engine) as session:
        make_catalogue_entry(session, name="removed", announced_at=LONG_AGO)
        make_worker(session)
        catalogue.announce(session, [MARGIN])
    assert set(announced(engine)) == {"margin"}


def test_what_another_live_worker_may_have_stays(engine: sa.Engine) -> None:
    with write_session(engine) as session:
        make_catalogue_entry(session, name="theirs", announced_at=LONG_AGO)
        make_worker(session)
        make_worker(session)
        catalogue.announce(session, [MARGIN])
    assert set(announced(engine)) == {"margin", "theirs"}


def test_a_worker_is_live_while_it_beats(engine: sa.Engine) -> None:
    worker = Worker(id="w", host="h", pid=1, device="cpu", lanes=["short"], has=[])
    with write_session(engine) as session:
        silent = make_worker(session, seen_at=utc_now() - timedelta(seconds=catalogue.SILENT_S + 1))
        forgotten = make_worker(session, seen_at=LONG_AGO)
        catalogue.see_worker(session, worker)
    with read_session(engine) as session:
        assert [each.id for each in catalogue.live_workers(session)] == ["w"]
        assert session.get(Worker, silent.id) is not None
        assert session.get(Worker, forgotten.id) is None
    with write_session(engine) as session:
        catalogue.forget_worker(session, "w")
    with read_session(engine) as session:
        assert catalogue.live_workers(session) == []
