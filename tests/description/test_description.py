"""Schemathesis sends whatever /openapi.json allows, and much that it does not: no answer is undocumented, or a 5xx."""

import os
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from service.store.session import write_session
from service.store.tables import utc_now
from tests import factories
from tests.description.hooks import NOWHERE
from tests.journeys.site import ADMIN_KEY, Site
from tests.worker.processes import REPOSITORY

EXAMPLES = 34  # most cases of each route and kind of data
CASES = 5_000  # at least, in all
CONFIG = Path(__file__).with_name("schemathesis.toml")


@pytest.mark.timeout(900)
def test_answers_are_as_described(tmp_path: Path, sqlite_url: str) -> None:
    settings = {
        "rate_limit_per_s": 0,
        "log_level": "error",
        "event_stream_s": 0.01,  # streams end by themselves
        "webhooks_to_private_addresses": True,  # to nobody: see hooks.py
        "tools_at_private_addresses": False,  # as the tool is nobody, too: 422 and not 503
    }
    with Site(tmp_path / "site", sqlite_url, **settings) as site:
        fill(site)
        site.start_service()
        run = subprocess.run(
            [
                sys.executable,
                "-m",
                "schemathesis.cli",
                "--config-file",
                str(CONFIG),
                "run",
                f"{str(site.http.base_url).rstrip('/')}/openapi.json",
                "--header",
                f"Authorization: Bearer {ADMIN_KEY}",
                # `deleted_is_gone` and `made_is_there` in hooks.py stand in for the checks that are left out.
                "--checks",
                "all",
                "--exclude-checks",
                "use_after_free,ensure_resource_availability",
                "--phases",
                "examples,coverage,fuzzing,stateful",
                "--mode",
                "all",
                "--max-examples",
                str(EXAMPLES),
                "--seed",
                "1",
                "--generation-deterministic",
                "--warnings",
                "off",
                "--no-color",
                "--suppress-health-check",
                "all",
            ],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stdout[-20_000:] + run.stderr[-2_000:]
        assert site.live_workers() == 1
    counted = re.search(r"([\d,]+) generated", run.stdout)
    assert counted is not None
    assert int(counted[1].replace(",", "")) >= CASES


def fill(site: Site) -> None:
    """Rows with the ids that the examples name, so that more than refusals is answered."""
    with write_session(site.engine) as session:
        project = factories.make_project(session, name="shirts", classes=["coat", "shirt"])
        items = [factories.make_item(session, project=project) for _ in range(40)]
        score_run = factories.make_score_run(session, project=project)
        ranking = factories.make_ranking(session, project=project, score_run=score_run, items=items[:20])
        project.score_run_id, project.ranking_id = score_run.id, ranking.id
        factories.make_head(session, project=project, score_run=score_run)
        factories.make_batch(session, project=project)
        factories.make_label(session, item=items[0])
        factories.make_job(session, project_id=project.id)
        factories.make_delivery(
            session, webhook=factories.make_webhook(session, project=project, url=NOWHERE), state="dead"
        )
        factories.make_worker(session, seen_at=utc_now() + timedelta(days=1))  # alive throughout
