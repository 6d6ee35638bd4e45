"""What is told of pretext models and their score runs: diagnostics, the gate, spreads."""

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from service.store.session import write_session
from tests import factories

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

GATE = {
    "verdict": "no-go",
    "reason": "On 60 labeled items …",
    "labels": 60,
    "items": 60,
    "judged_on": "random",
    "linear": {"trained": 0.5, "pixels": 0.7},
    "knn": {"trained": 0.5, "pixels": 0.6},
    "better": None,
}
SHOWN = {name: value for name, value in GATE.items() if name != "better"}


@pytest.fixture
def project(engine: sa.Engine) -> None:
    """A collapsed model, the untrained one in its place, and another project that uses it too."""
    with write_session(engine) as session:
        project = factories.make_project(session)
        factories.make_pretext_model(
            session,
            project=project,
            version=1,
            state="collapsed",
            diagnostics={"collapse": "The training collapsed"},
        )
        model = factories.make_pretext_model(
            session, project=project, version=2, diagnostics={"note": "The untrained backbone, in place of …"}
        )
        run = factories.make_score_run(session, project=project, pretext_model=model, gate=GATE)
        project.score_run_id = run.id
        item = factories.make_item(session, project=project)
        factories.make_score(session, score_run=run, item=item, spread=0.25)
        other = factories.make_project(session)
        other_run = factories.make_score_run(session, project=other, pretext_model=model)
        other.score_run_id = other_run.id


@pytest.mark.usefixtures("project")
def test_models_tell_of_collapse_and_gate(admin: TestClient) -> None:
    newer, older = admin.get("/projects/p_1/pretext-models").json()["items"]

    assert (older["state"], older["gate"]) == ("collapsed", None)
    assert older["diagnostics"]["collapse"] == "The training collapsed"
    assert newer["gate"] == SHOWN


@pytest.mark.usefixtures("project")
def test_the_project_says_so(admin: TestClient) -> None:
    served = admin.get("/projects/p_1/metrics").json()["score_run"]
    assert served["embeddings"].startswith("Embeddings: by the pretext model (small).")

    assert served["gate"] == SHOWN
    assert served["note"] == "The untrained backbone, in place of …"
    assert admin.get("/projects/p_1/scores").json()["gate"] == SHOWN


@pytest.mark.usefixtures("project")
def test_labels_of_another_project_judge_for_themselves(admin: TestClient) -> None:
    assert admin.get("/projects/p_2/metrics").json()["score_run"]["gate"] is None


@pytest.mark.usefixtures("project")
def test_spreads_are_served_with_the_losses(admin: TestClient) -> None:
    assert admin.get("/projects/p_1/items").json()["items"][0]["pretext_loss_spread"] == 0.25
    answer = admin.get("/projects/p_1/scores", headers={"Accept": "application/x-ndjson"})
    assert '"pretext_loss_spread":0.25' in answer.text.replace(" ", "")
