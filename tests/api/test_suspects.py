import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from service.store.session import write_session
from service.store.tables import Item, Project
from tests import factories
from tests.api.conftest import Callers, created


@pytest.fixture
def suspects(admin: TestClient, engine: sa.Engine) -> None:
    """i_1 … i_4, the most doubtful last; i_2 has another class since the check."""
    created(admin)
    with write_session(engine) as session:
        project = session.get_one(Project, 1)
        for number in range(4):
            item = factories.make_item(session, project=project, key=f"{number}")
            factories.make_label(session, item=item, class_name="coat", annotator="ann")
            factories.make_suspect(
                session, item=item, class_name="coat", suggested_class="shirt", quality=0.4 - 0.1 * number
            )
        session.get_one(Item, 2).class_name = "shirt"
        project.labels_used = 4


@pytest.mark.usefixtures("suspects")
def test_the_most_doubtful_come_first_and_are_sent_out_again(admin: TestClient) -> None:
    at = "/projects/p_1/suspects"
    found = admin.get(at).json()["items"]
    assert [one["item"] for one in found] == ["i_4", "i_3", "i_1"]
    assert (found[0]["class"], found[0]["suggested_class"], found[0]["annotators"]) == (
        "coat",
        "shirt",
        ["ann"],
    )
    assert admin.get(found[0]["image_url"]).status_code == 404  # no such file, but the link is good
    first = admin.get(at, params={"limit": 2}).json()
    rest = admin.get(at, params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [one["item"] for one in rest["items"]] == ["i_1"]

    assert admin.post(f"{at}/queue", json={"count": 2}).json() == {"added": 2, "reopened": 2}
    assert [one["item"] for one in admin.get(at).json()["items"]] == ["i_1"]
    assert admin.post("/next-batch", json={"annotator": "ann"}).json()["reason"] == "not_your_turn"
    batch = admin.post("/next-batch", json={"annotator": "bob"}).json()
    assert [item["id"] for item in batch["items"]] == ["i_4", "i_3"]


@pytest.mark.usefixtures("suspects")
def test_gold_items_are_suspects_no_more(admin: TestClient) -> None:
    admin.post("/projects/p_1/gold", json={"items": [{"item": "i_4", "class": "coat"}]})
    assert [one["item"] for one in admin.get("/projects/p_1/suspects").json()["items"]] == ["i_3", "i_1"]
    assert admin.post("/projects/p_1/suspects/queue", json={"count": 9}).json()["added"] == 2


@pytest.mark.usefixtures("suspects")
def test_an_annotator_looks_again_at_what_others_labeled(admin: TestClient) -> None:
    at = "/projects/p_1/suspects/queue"
    refused = admin.post(at, json={"annotator": "ann"})
    assert (refused.status_code, refused.json()["code"]) == (409, "no_suspects")
    assert admin.post(at, json={"annotator": "bob"}).json() == {"added": 3, "reopened": 3}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_checking_now(admin: TestClient, engine: sa.Engine, caller: Callers) -> None:
    created(admin)
    at = "/projects/p_1/suspects"
    assert admin.post(f"{at}/check").json()["code"] == "no_score_run"
    nothing = admin.post(f"{at}/queue", json={})
    assert (nothing.status_code, nothing.json()["code"]) == (409, "no_suspects")
    with write_session(engine) as session:
        project = session.get_one(Project, 1)
        project.score_run_id = factories.make_score_run(session, project=project).id
    assert admin.post(f"{at}/check").json()["code"] == "no_labels"
    with write_session(engine) as session:
        session.get_one(Project, 1).labels_used = 30
    answer = admin.post(f"{at}/check")
    assert (answer.status_code, answer.json()["kind"]) == (202, "check_labels")
    assert caller("annotator").get(at).status_code == 403
