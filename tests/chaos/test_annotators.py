"""64 annotators of bad habits, 10,000 items, two services on one database, processes killed: nothing twice,
nothing lost. What is checked is what the annotators saw, each with the clock of the same machine.
"""

import json
import random
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

import httpx2 as httpx
import sqlalchemy as sa

from service.settings import Settings
from service.store.ids import row_number
from service.store.session import read_session, write_session
from service.store.tables import Item, Project, RankedItem, Reservation, Round
from tests import factories
from tests.chaos.annotators import CLASSES
from tests.worker.processes import REPOSITORY, environment

PROCESSES = 8
POOLS = ((10_000, 1), (120, 3))  # items, overlap: one that is large, one that all crowd into
WORK_S, KILLED_EVERY_S = 20.0, 4.0
RESERVATION_TTL_S = 5  # of a busy machine nearly every label would come late with less
ADMIN_KEY = "an-admin-key-for-tests"

Json = dict[str, Any]
Content = tuple[str | None, str | None]  # class, skip
LabelId = tuple[str, str, int]  # item, annotator, revision
Key = tuple[str, str]  # item, annotator


class Service:
    """`shortlist serve` on a port that it keeps over a restart."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._port = settings, 0
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "service.cli", "serve", "--port", str(self._port)]
        variables = environment(self._settings) | {
            "SHORTLIST_ADMIN_KEY": ADMIN_KEY,
            "SHORTLIST_LOG_LEVEL": "error",
        }
        self._process = subprocess.Popen(
            command, env=variables, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().strip()
        self._port = int(self.address.rpartition(":")[2])

    @property
    def port(self) -> int:
        return self._port

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


class Annotators:
    """The eight processes, their journals in one folder."""

    def __init__(self, folder: Path, services: list[Service], projects: list[str]) -> None:
        self._folder = folder
        self._told = {
            "ports": [service.port for service in services],
            "key": ADMIN_KEY,
            "projects": projects,
            "reservation_ttl_s": RESERVATION_TTL_S,
        }
        self._started = 0
        self._processes = [self._start(number) for number in range(PROCESSES)]

    def _start(self, number: int) -> subprocess.Popen[bytes]:
        self._started += 1
        journal = self._folder / f"journal-{number}-{self._started}.jsonl"
        told = self._told | {"number": number, "seed": self._started, "journal": str(journal)}
        return subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.annotators", json.dumps(told)], cwd=REPOSITORY
        )

    def restart(self, number: int) -> None:
        """`kill -9`; the same people come back."""
        self.kill(number)
        self._processes[number] = self._start(number)

    def kill(self, number: int) -> None:
        self._processes[number].kill()
        self._processes[number].wait()

    def close(self) -> None:
        """They finish what they are at."""
        (self._folder / "closed").touch()
        for process in self._processes:
            assert process.wait(60) == 0

    def journal(self) -> list[Json]:
        """All that was written down, by time. A killed process may have left half a line."""
        lines = []
        for path in self._folder.glob("journal-*.jsonl"):
            lines += [json.loads(line) for line in path.read_text().splitlines(True) if line.endswith("\n")]
        return sorted(lines, key=lambda line: line["at"])


@contextmanager
def services(settings: Settings, count: int) -> Iterator[list[Service]]:
    with ExitStack() as stack:
        started = []
        for _ in range(count):
            started.append(Service(settings))
            stack.callback(started[-1].kill)
        yield started


def make_project(http: httpx.Client, engine: sa.Engine, images: Path, items: int, overlap: int) -> str:
    """Half of the items are ranked."""
    body = {
        "name": f"overlap {overlap}",
        "classes": CLASSES,
        "overlap": overlap,
        "round_size": 100,
        "reservation_ttl_s": RESERVATION_TTL_S,
    }
    project: str = http.post("/projects", json=body).json()["id"]
    lines = [json.dumps({"key": f"{number:05}", "uri": f"{images}/{number}.png"}) for number in range(items)]
    ndjson = {"Content-Type": "application/x-ndjson"}
    answer = http.post(f"/projects/{project}/items", content="\n".join(lines), headers=ndjson)
    assert answer.json()["added"] == items
    with write_session(engine) as session:
        row = session.get_one(Project, row_number("p", project))
        score_run = factories.make_score_run(session, project=row)
        ranking = factories.make_ranking(session, project=row, score_run=score_run)
        unordered = sa.select(Item.id).where(Item.project_id == row.id).order_by(Item.shuffle.desc())
        ranked = [
            {"ranking_id": ranking.id, "rank": rank, "item_id": number, "score": 1 / rank}
            for rank, number in enumerate(session.scalars(unordered.limit(items // 2)), 1)
        ]
        session.execute(sa.insert(RankedItem), ranked)
        ranking.items = len(ranked)
        row.score_run_id, row.ranking_id = score_run.id, ranking.id
    return project


def test_nothing_is_served_twice_and_nothing_is_lost(
    settings: Settings, engine: sa.Engine, tmp_path: Path
) -> None:
    dice = random.Random(3)
    key = {"Authorization": f"Bearer {ADMIN_KEY}"}
    with (
        services(settings, 2) as running,
        httpx.Client(base_url=running[0].address, headers=key, timeout=60) as http,
    ):
        pools = {make_project(http, engine, tmp_path, *pool): pool for pool in POOLS}
        annotators = Annotators(tmp_path, running, list(pools))
        try:
            for number in dice.sample(range(PROCESSES), int(WORK_S / KILLED_EVERY_S) - 1):
                time.sleep(KILLED_EVERY_S)
                annotators.restart(number)
            running[1].kill()
            running[1].start()
            time.sleep(KILLED_EVERY_S)
            annotators.close()
        finally:
            for number in range(PROCESSES):
                annotators.kill(number)
        exported = {
            project: http.get(f"/projects/{project}/labels", params={"all": True}).text for project in pools
        }
    journal = annotators.journal()
    stored = {project: [json.loads(line) for line in text.splitlines()] for project, text in exported.items()}

    assert len(stored) == len(POOLS)
    check_labels(journal, [row for rows in stored.values() for row in rows])
    for project, (_, overlap) in pools.items():
        check_holds([line for line in journal if line.get("project") == project], stored[project], overlap)
        check_sums(engine, project, stored[project])
    (_, crowd) = pools
    with read_session(engine) as session:
        in_crowd = sa.select(Item.state).where(Item.project_id == row_number("p", crowd)).distinct()
        assert session.scalars(in_crowd).all() == ["done"], "the crowd was not through with the small pool"


class Hold(NamedTuple):
    start: float
    end: float


def label_id(label: Json) -> LabelId:
    return label["item"], label["annotator"], label["revision"]


def content(label: Json) -> Content:
    return label.get("class"), label.get("skip")


def check_labels(journal: list[Json], stored: list[Json]) -> None:
    """What was answered 2xx is stored, once; nothing else is but what was sent."""
    rows = {label_id(row): row for row in stored}
    assert len(rows) == len(stored)

    sent = {
        (label_id(label), content(label))
        for line in journal
        if line["what"] == "sent"
        for label in line["labels"]
    }
    assert {(number, content(row)) for number, row in rows.items()} <= sent

    outcomes: dict[LabelId, list[str]] = defaultdict(list)
    for line in journal:
        assert line["what"] != "refused", line
        if line["what"] == "answered":
            for label, outcome in zip(line["labels"], line["outcomes"], strict=True):
                assert content(rows[label_id(label)]) == content(label)
                outcomes[label_id(label)].append(outcome)
    for number, answered in outcomes.items():
        assert all(outcome == "duplicate" for outcome in answered[1:]), (number, answered)
        # A first answer that says `duplicate` was not the first to be given: somebody hung up, or was killed.
        assert answered[0] in ("duplicate", rows[number]["outcome"]), (number, answered, rows[number])
    unanswered = rows.keys() - outcomes.keys()
    counted = Counter(row["outcome"] for row in stored)
    assert {"accepted", "late", "revised", "stale"} <= counted.keys(), f"too tame to prove much: {counted}"
    assert 0 < len(unanswered) < len(rows) / 5

    newest: dict[tuple[str, str], int] = defaultdict(int)
    for item, annotator, revision in rows:
        newest[item, annotator] = max(newest[item, annotator], revision)
    current = [(row["item"], row["annotator"], row["revision"]) for row in stored if row["current"]]
    assert sorted(current) == sorted((*key, revision) for key, revision in newest.items())


def check_holds(journal: list[Json], stored: list[Json], overlap: int) -> None:
    """No item above its overlap at any moment, and nobody gets what they have labeled already.

    A hold begins when its batch was seen at the latest, and lasts until it runs out, or until it was given back or
    labeled at the earliest; a label in time is a place taken for good. Items with a wrong label are left out: where
    annotators disagree one more is asked.
    """
    sent: dict[Key, float] = {}
    answered: dict[Key, float] = {}
    given_back: dict[str, float] = {}
    for line in journal:
        if line["what"] == "given back":
            given_back[line["batch"]] = line["at"]
        for label in line.get("labels", ()):
            times = sent if line["what"] == "sent" else answered
            times.setdefault((label["item"], label["annotator"]), line["at"])

    holds: dict[Key, dict[str, Hold]] = defaultdict(dict)
    for line in journal:
        for item in line.get("items", ()):
            key = item, line["annotator"]
            assert answered.get(key, line["asked"]) >= line["asked"], f"{key} was labeled and served again"
            ends = line["until"], given_back.get(line["batch"], inf), sent.get(key, inf)
            holds[key].setdefault(line["batch"], Hold(line["at"], min(ends)))

    truth = {row["item"]: CLASSES[int(row["key"]) % len(CLASSES)] for row in stored}
    disputed = {row["item"] for row in stored if row["class"] not in (None, truth[row["item"]])}
    for row in stored:
        key = row["item"], row["annotator"]
        if row["outcome"] == "accepted" and row["class"] is not None:
            last = list(holds[key])[-1]
            holds[key][last] = holds[key][last]._replace(end=inf)

    places: dict[str, list[tuple[str, Hold]]] = defaultdict(list)
    for (item, annotator), batches in holds.items():
        places[item] += [(annotator, hold) for hold in batches.values() if hold.start < hold.end]
    most = Counter[int]()
    for item in places.keys() - disputed:
        for _, (at, _) in places[item]:
            there = {annotator for annotator, hold in places[item] if hold.start <= at < hold.end}
            assert len(there) <= overlap, (item, places[item])
            most[len(there)] += 1
    assert most[overlap] > 20, f"too few met to prove much: {most}"


def check_sums(engine: sa.Engine, project: str, stored: list[Json]) -> None:
    """The counters, which are only ever added to, are what the rows add up to."""
    used = sum(row["current"] and row["used"] and row["class"] is not None for row in stored)
    with read_session(engine) as session:
        row = session.get_one(Project, row_number("p", project))
        assert row.labels_used == used
        served = sa.select(sa.func.count()).where(
            Reservation.project_id == row.id, Reservation.state.in_(("open", "labeled"))
        )
        assert row.served == session.scalar(served)
        assert row.served_control == session.scalar(served.where(Reservation.arm == "control"))
        in_rounds = session.scalar(sa.select(sa.func.sum(Round.labels)).where(Round.project_id == row.id))
        still_open = sa.select(Round.labels_before).where(
            Round.project_id == row.id, Round.closed_at.is_(None)
        )
        assert in_rounds == session.scalars(still_open).one()
