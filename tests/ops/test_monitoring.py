"""What `/metrics` tells, what stands in ops/, and a real Prometheus between the two."""

import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import sqlalchemy as sa
from prometheus_client.parser import text_string_to_metric_families

from service.access import keys
from service.settings import Settings
from service.store.session import write_session
from service.store.tables import Project, utc_now
from shortlist_client import Shortlist
from tests import factories
from tests.served import Served

OPS = Path(__file__).parents[2] / "ops"
NAME = re.compile(r"\bshortlist_\w+")


@pytest.fixture
def told(engine: sa.Engine, settings: Settings) -> Iterator[str]:
    """`/metrics` of a service in which everything has happened once. Also the address and the key, for Prometheus."""
    with write_session(engine) as session:
        _, token = keys.create(session, keys.server_secret(settings), name="admin", role="admin")
    served = Served(settings)
    served.start()
    try:
        with Shortlist(served.url, token) as client:
            project = client.create_project("texts", ["good", "bad"], modality="text")
            project.add_items([{"key": f"{number}", "text": f"text {number}"} for number in range(9)])
            project.label([{"key": "0", "class": "good", "annotator": "ann"}])
            project.label([{"key": "0", "class": "good", "annotator": "ann"}])
            project.import_labels(
                [{"key": "1", "class": "bad"}, {"key": "nowhere", "class": "bad"}], annotator="old"
            )
            assert len(project.next_batch("ann", size=3).items) == 3
            with write_session(engine) as session:
                row = session.get_one(Project, 1)
                run = factories.make_score_run(
                    session, project=row, finished_at=utc_now() - timedelta(hours=2)
                )
                ranking = factories.make_ranking(session, project=row, score_run=run)
                head = factories.make_head(session, project=row, score_run=run, metrics={"accuracy": 0.75})
                row.score_run_id, row.ranking_id, row.head_id = run.id, ranking.id, head.id
                factories.make_worker(session)
                factories.make_job(session, project_id=1, kind="score_pool", run_at=time.time() - 100)
                factories.make_job(
                    session, project_id=1, kind="rank", state="failed", finished_at=time.time()
                )
                factories.make_job(session, project_id=1, kind="rank", state="failed", finished_at=1.0)
                factories.make_delivery(session, webhook=factories.make_webhook(session, project=row))
                archived = factories.make_project(session, state="archived")
                factories.make_item(session, project=archived)
            told = httpx.get(
                f"{served.url}/metrics", headers={"Authorization": f"Bearer {token}"}, timeout=60
            )
            assert told.status_code == 200, told.text
            yield f"{served.url} {token}\n{told.text}"
    finally:
        served.stop()


def values(text: str) -> dict[tuple[str, ...], float]:
    """By name and labels; all is as Prometheus' own parser reads it."""
    return {
        (sample.name, *(f"{name}={value}" for name, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_figures_of_the_service(told: str) -> None:
    found = values(told.partition("\n")[2])
    assert found["shortlist_labels_total", "outcome=accepted"] == 2
    assert found["shortlist_labels_total", "outcome=duplicate"] == 1
    assert found["shortlist_next_batch_duration_seconds_count",] == 1
    assert found["shortlist_next_batch_duration_seconds_bucket", "le=+Inf"] == 1
    assert found["shortlist_requests_total", "method=POST", "route=/projects", "status=201"] == 1
    assert found["shortlist_reservations_active", "project=p_1"] == 3
    assert found["shortlist_labels_used", "project=p_1"] == 2
    assert found["shortlist_score_run_age_seconds", "project=p_1"] == pytest.approx(7200, abs=120)
    assert found["shortlist_ranking_age_seconds", "project=p_1"] == pytest.approx(60, abs=120)
    assert found["shortlist_head_accuracy_ratio", "project=p_1"] == 0.75
    assert found["shortlist_jobs", "kind=score_pool", "state=queued"] == 1
    assert found["shortlist_job_oldest_due_seconds", "kind=score_pool"] == pytest.approx(160, abs=70)
    assert found["shortlist_jobs_failed_last_hour", "kind=rank"] == 1
    assert found["shortlist_workers_alive",] == 1
    assert found["shortlist_webhook_deliveries", "state=pending"] == 1
    assert found["shortlist_projects", "state=active"] == found["shortlist_projects", "state=archived"] == 1
    assert not any("project=p_2" in key for key in found)


def test_names_follow_the_conventions_and_are_explained(told: str) -> None:
    page = (OPS.parent / "docs" / "monitoring.md").read_text(encoding="utf-8")
    for family in text_string_to_metric_families(told.partition("\n")[2]):
        assert re.fullmatch(r"shortlist_[a-z_]+", family.name)
        assert family.documentation
        assert not family.name.endswith(("_ms", "_count", "_sum"))
        name = f"{family.name}_total" if family.type == "counter" else family.name
        assert f"`{name}`" in page or f"`{name}{{" in page, f"docs/monitoring.md does not explain {name}"


def test_dashboard_and_alerts_ask_for_what_there_is(told: str) -> None:
    there = {key[0] for key in values(told.partition("\n")[2])}
    asked = {
        name
        for file in ("grafana-dashboard.json", "alerts.yml")
        for name in NAME.findall((OPS / file).read_text())
    }
    assert len(asked) > 10
    assert asked - there == set()


def test_the_dashboard_is_one_that_grafana_imports() -> None:
    board = json.loads((OPS / "grafana-dashboard.json").read_text())
    assert {"title", "uid", "panels", "schemaVersion", "templating"} <= board.keys()
    numbers = [panel["id"] for panel in board["panels"]]
    assert len(numbers) == len(set(numbers)) > 8
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + dx, place["y"] + dy) for dx in range(place["w"]) for dy in range(place["h"])}
        assert not cells & taken, f"{panel['title']} lies on another panel"
        taken |= cells
        assert panel["targets"]
        assert panel["datasource"]["uid"] == "${datasource}"
    assert {x for x, _ in taken} == set(range(24))


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: apt-get install prometheus")
    return found


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "rules", "alerts.yml"),
        ("test", "rules", "alerts_test.yml"),
        ("check", "config", "--syntax-only", "prometheus.yml"),
    ],
)
def test_promtool_takes_what_stands_in_ops(arguments: tuple[str, ...]) -> None:
    checked = subprocess.run(
        [program("promtool"), *arguments], cwd=OPS, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


@contextmanager
def prometheus(folder: Path, target: str, key: str) -> Iterator[str]:
    """The real one, with the configuration in ops/ but for the address, and a scrape a second."""
    shutil.copytree(OPS, folder, dirs_exist_ok=True)
    configuration = (folder / "prometheus.yml").read_text()
    assert "127.0.0.1:8000" in configuration
    changed = configuration.replace("127.0.0.1:8000", target).replace("15s", "1s")
    (folder / "prometheus.yml").write_text(changed)
    (folder / "shortlist.key").write_text(f"{key}\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        at = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [
        program("prometheus"),
        "--config.file=prometheus.yml",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={at}",
        "--log.level=error",
    ]
    process = subprocess.Popen(command, cwd=folder)
    try:
        yield f"http://{at}"
    finally:
        process.terminate()
        process.wait(30)


def test_a_real_prometheus_scrapes_it(told: str, tmp_path: Path) -> None:
    url, key = told.partition("\n")[0].split()

    with (
        prometheus(tmp_path / "prometheus", url.removeprefix("http://"), key) as at,
        httpx.Client(base_url=at) as http,
    ):

        def ask(expression: str) -> list[dict[str, Any]]:
            answer = http.get("/api/v1/query", params={"query": expression}).json()
            assert answer["status"] == "success", (expression, answer)
            found: list[dict[str, Any]] = answer["data"]["result"]
            return found

        give_up_at = time.monotonic() + 60
        while True:
            try:
                if ask('up{job="shortlist"} == 1'):
                    break
            except (httpx.TransportError, ValueError):  # not there, or not ready and says so in words
                pass
            assert time.monotonic() < give_up_at, "it was not scraped"
            time.sleep(0.2)
        (labels,) = ask('shortlist_labels_total{outcome="accepted"}')
        assert labels["value"][1] == "2"
        (age,) = ask("shortlist_score_run_age_seconds > 3600")
        assert age["metric"]["project"] == "p_1"
        board = json.loads((OPS / "grafana-dashboard.json").read_text())
        for panel in board["panels"]:
            for target in panel["targets"]:
                ask(target["expr"])  # it is understood
        rules = http.get("/api/v1/rules").json()["data"]["groups"][0]["rules"]
        assert {"ShortlistDown", "ShortlistNoWorker"} <= {rule["name"] for rule in rules}
        assert {rule["health"] for rule in rules} <= {"ok", "unknown"}  # not evaluated yet
