"""A service on a database of its own, and pools as they are after scoring and ranking."""

import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2 as httpx
import sqlalchemy as sa

from service.store import planner_stats
from service.store.ids import row_number
from service.store.migrate import upgrade
from service.store.session import make_engine, read_session, write_session
from service.store.tables import (
    Item,
    PretextModel,
    Project,
    RankedItem,
    Ranking,
    Reservation,
    Score,
    ScoreRun,
)
from tests.databases import postgres_server

RANKED = 5_000  # items of a ranking: enough for several rounds
CLASSES = ["cat", "dog"]


@dataclass(frozen=True)
class Site:
    address: str
    key: str
    engine: sa.Engine
    folder: Path
    process: subprocess.Popen[str]

    def http(self) -> httpx.Client:
        return httpx.Client(
            base_url=self.address, headers={"Authorization": f"Bearer {self.key}"}, timeout=600
        )

    def memory_mb(self) -> float:
        """The service's most resident memory so far."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(peak.split()[1]) / 1024


@contextmanager
def database(kind: str, folder: Path) -> Iterator[str]:
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'shortlist.db'}"
        return
    with postgres_server() as server:
        name = f"shortlist_bench_{secrets.token_hex(4)}"
        admin = sa.create_engine(server, isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        try:
            yield server.set(database=name).render_as_string(hide_password=False)
        finally:
            with admin.connect() as connection:
                connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
            admin.dispose()


@contextmanager
def running(kind: str) -> Iterator[Site]:
    """`shortlist serve` on a fresh database, without a worker: serving is what is measured."""
    with tempfile.TemporaryDirectory(prefix="shortlist-bench-") as temporary:
        folder, key = Path(temporary), secrets.token_urlsafe(24)
        with database(kind, folder) as url:
            engine = make_engine(url)
            upgrade(engine)
            variables = {
                "SHORTLIST_DATA_DIR": str(folder),
                "SHORTLIST_DATABASE_URL": url,
                "SHORTLIST_ADMIN_KEY": key,
                "SHORTLIST_SOURCE_ROOTS": str(folder),
                "SHORTLIST_RATE_LIMIT_PER_S": "0",
                "SHORTLIST_LOG_LEVEL": "error",
            }
            with started([sys.executable, "-m", "service.cli", "serve", "--port", "0"], variables) as (
                process,
                address,
            ):
                yield Site(address, key, engine, folder, process)
            engine.dispose()


@contextmanager
def started(command: list[str], variables: dict[str, str]) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that says its address first."""
    process = subprocess.Popen(command, env=os.environ | variables, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        if not address:
            sys.exit("The service did not start; its log above says why.")
        yield process, address
    finally:
        process.terminate()
        process.communicate(timeout=60)


def register(site: Site, items: int) -> tuple[str, float]:
    """A project with so many items, streamed in as NDJSON; its id, and the seconds that the stream took."""

    def lines() -> Iterator[bytes]:
        for start in range(0, items, 1000):
            numbers = range(start, min(start + 1000, items))
            yield "".join(
                json.dumps({"key": f"{number:08}.png", "uri": f"{site.folder}/{number:08}.png"}) + "\n"
                for number in numbers
            ).encode()

    with site.http() as http:
        name = f"{items} items, {secrets.token_hex(4)}"
        made = http.post("/projects", json={"name": name, "classes": CLASSES, "round_size": 1000})
        project: str = made.raise_for_status().json()["id"]
        ndjson = {"Content-Type": "application/x-ndjson"}
        begun = time.perf_counter()
        answer = http.post(f"/projects/{project}/items", content=lines(), headers=ndjson).raise_for_status()
        seconds = time.perf_counter() - begun
    if answer.json()["added"] != items:
        sys.exit(f"{answer.json()} instead of {items} items")
    return project, seconds


def available(site: Site, project: str) -> int:
    """Items that nobody labeled or holds."""
    number = row_number("p", project)
    items = sa.select(sa.func.count()).where(Item.project_id == number, Item.state == "available")
    held = sa.select(sa.func.count()).where(Reservation.project_id == number, Reservation.state == "open")
    with read_session(site.engine) as session:
        return (session.scalar(items) or 0) - (session.scalar(held) or 0)


def score_and_rank(site: Site, project: str) -> None:
    """As a worker leaves it: a loss for each item, and the newest ranking of what is available."""
    number = row_number("p", project)
    with write_session(site.engine) as session:
        row = session.get_one(Project, number)
        if row.score_run_id is None:
            row.score_run_id = _scored(session, number)
        version = 1 + (session.scalar(sa.select(sa.func.count()).where(Ranking.project_id == number)) or 0)
        ranking = Ranking(
            project_id=number,
            version=version,
            strategy={"name": "shortlist", "params": {}},
            seed=0,
            score_run_id=row.score_run_id,
            labels_used=row.labels_used,
            items=RANKED,
            seconds=0.1,
        )
        session.add(ranking)
        session.flush()
        last_first = (
            sa.select(Item.id)
            .where(Item.project_id == number, sa.text("items.state = 'available' AND items.split = 'pool'"))
            .order_by(Item.shuffle.desc())
            .limit(RANKED)
        )
        rows = [
            {"ranking_id": ranking.id, "rank": rank, "item_id": item, "score": 1 / rank}
            for rank, item in enumerate(session.scalars(last_first), 1)
        ]
        session.execute(sa.insert(RankedItem), rows)
        ranking.items = len(rows)
        row.ranking_id = ranking.id
        planner_stats.refresh(session, "ranked_items")
        planner_stats.refresh(session, "scores")


def settle(site: Site) -> None:
    """Do at once what PostgreSQL does by itself in the minutes after so many new rows."""
    if site.engine.dialect.name == "postgresql":
        with site.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM ANALYZE items, scores, ranked_items")
            connection.exec_driver_sql("CHECKPOINT")


def _scored(session: sa.orm.Session, project_id: int) -> int:
    model = PretextModel(
        project_id=project_id,
        version=1,
        state="ready",
        task={"name": "none", "params": {}},
        backbone="none",
        config={},
    )
    session.add(model)
    session.flush()
    run = ScoreRun(
        project_id=project_id,
        pretext_model_id=model.id,
        state="complete",
        last_item_id=2**40,
        artifact="none",
    )
    session.add(run)
    session.flush()
    losses = sa.select(sa.literal(run.id), Item.id, sa.literal(1.0), sa.literal(50.0)).where(
        Item.project_id == project_id
    )
    columns = ["score_run_id", "item_id", "pretext_loss", "percentile"]
    session.execute(sa.insert(Score).from_select(columns, losses))
    return run.id


def database_mb(site: Site) -> float:
    if site.engine.dialect.name == "sqlite":
        return sum(path.stat().st_size for path in site.folder.glob("shortlist.db*")) / 2**20
    with read_session(site.engine) as session:
        return float(session.scalars(sa.text("SELECT pg_database_size(current_database())")).one()) / 2**20
