"""Exported backbones, and pretext models lent to other projects, through HTTP."""

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from service.store.artifacts import Artifacts
from service.store.session import write_session
from service.store.tables import Job, Project
from tests import factories
from tests.api.conftest import Callers, created

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def test_an_export_is_asked_for_and_downloaded(
    admin: TestClient, engine: sa.Engine, artifacts: Artifacts, caller: Callers
) -> None:
    created(admin)
    with write_session(engine) as session:
        project = session.get_one(Project, 1)
        factories.make_pretext_model(session, project=project, version=1)
        factories.make_pretext_model(session, project=project, version=2, state="training", artifact=None)
    at = "/projects/p_1/pretext-models"
    early = admin.get(f"{at}/1/backbone")
    assert (early.status_code, early.json()["code"]) == (404, "backbone_not_exported")
    job = admin.post(f"{at}/1/export")
    assert (job.status_code, job.json()["kind"]) == (202, "export_backbone")
    with artifacts.writing("pretext/1/backbone.zip") as file:
        file.write(b"zipped")
    found = caller("reader").get(f"{at}/1/backbone")
    assert (found.content, found.headers["content-type"]) == (b"zipped", "application/zip")
    assert found.headers["content-disposition"] == 'attachment; filename="small-p_1-1.zip"'
    for number in (2, 3):  # not finished; not there
        assert admin.post(f"{at}/{number}/export").status_code == 404
        assert admin.get(f"{at}/{number}/backbone").status_code == 404


def test_a_pretext_model_is_lent_on(admin: TestClient, engine: sa.Engine) -> None:
    """The third project takes what the second one took from the first."""
    for number, name in enumerate(("first", "second", "third")):
        more = {"pretext_from": f"p_{number}"} if number else {}
        assert created(admin, name=name, **more)["id"] == f"p_{number + 1}"
    with write_session(engine) as session:
        first, third = session.get_one(Project, 1), session.get_one(Project, 3)
        factories.make_item(session, project=third)
        model = factories.make_pretext_model(session, project=first)
    refused = admin.post("/projects/p_3/pretrain")
    assert (refused.status_code, refused.json()["code"]) == (409, "no_pretext_model")
    with write_session(engine) as session:
        second = session.get_one(Project, 2)
        second.score_run_id = factories.make_score_run(session, project=second, pretext_model=model).id
    assert admin.post("/projects/p_3/pretrain").json()["kind"] == "score_pool"
    with write_session(engine) as session:
        job = session.scalars(sa.select(Job)).one()
        assert job.payload == {"pretext_model_id": model.id}
