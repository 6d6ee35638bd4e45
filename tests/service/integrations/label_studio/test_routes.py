"""Connecting, and what Label Studio calls: at once, with sentences, and with a secret."""

import base64
import json
import time
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from structlog.testing import capture_logs

from service.access import keys
from service.integrations.label_studio import connect
from service.integrations.label_studio.connect import Wanted
from service.integrations.label_studio.errors import ToolProjectMissing
from service.settings import Settings
from service.store.session import read_session, write_session
from service.store.tables import Project, ToolConnection
from tests.applications import make_app
from tests.service.integrations.label_studio.conftest import Site
from tests.service.integrations.label_studio.fake import LEGACY, FakeLabelStudio, chosen

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
CALLBACK = "http://127.0.0.1:8000"


def refused(answer: Any, status: int, code: str) -> str:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    return str(answer.json()["detail"])


def test_a_wrong_token_is_told_at_once(site: Site, tool: FakeLabelStudio) -> None:
    site.project()
    with capture_logs() as logs:
        said = refused(site.connect(tool, token="f" * 40), 422, "tool_token_refused")
        assert "`token`: Label Studio refuses this token: Invalid token." in said
        refused(site.connect(tool, token="eyJ.wrong.token"), 422, "tool_token_refused")
        for token in ("eyJ…", "two words", "eyJ.\n.x"):  # as copied from a page that shortens it
            assert "characters that no token has" in refused(
                site.connect(tool, token=token), 422, "tool_token_refused"
            )
    assert "f" * 40 not in str(logs)
    assert site.count(ToolConnection) == 0


def test_a_wrong_project_or_address_is_told_at_once(site: Site, tool: FakeLabelStudio) -> None:
    site.project()
    assert "has no project 8" in refused(site.connect(tool, tool_project=8), 422, "tool_project_missing")
    assert "http" in refused(site.connect(tool, url="ftp://tool"), 422, "tool_address_refused")
    refused(site.connect(tool, url="http://127.0.0.1:9"), 503, "tool_unreachable")
    refused(site.connect(tool, callback_url="nowhere"), 422, "invalid")
    assert site.count(ToolConnection) == 0


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (
            "<View><Image name='image' value='$image'/></View>",
            "none of the tags that say a class, which are Choices",
        ),
        (
            "<View><TimeSeries name='a' value='$a'/><Choices name='c' toName='a'/></View>",
            "is for one that shows an item: Image, Text, HyperText, Audio",
        ),
        (
            "<View><Image name='i' value='http://x/a.png'/><Choices name='c' toName='i'/></View>",
            "not a variable",
        ),
        ("<View>", "it is no XML"),
        ("<!DOCTYPE a [<!ENTITY b 'c'>]><View/>", "declares a document type"),
    ],
)
def test_a_configuration_that_cannot_be_used(
    site: Site, tool: FakeLabelStudio, config: str, sentence: str
) -> None:
    site.project()
    tool.label_config = config
    assert sentence in refused(site.connect(tool), 422, "labeling_config_unusable")


def test_classes_that_only_the_tool_has(site: Site, tool: FakeLabelStudio) -> None:
    tool.label_config = tool.label_config.replace('"dog"', '"DOG"').replace(
        "</Choices>", '<Choice value="bird"/></Choices>'
    )
    site.project()
    said = refused(site.connect(tool), 422, "tool_classes_unknown")
    assert "lacks: bird. Send `add_classes: true` (`--add-classes`)" in said
    assert site.connect(tool, add_classes=True).status_code == 201
    assert site.client.get("/projects/p_1").json()["classes"] == ["cat", "dog", "bird"]


def test_a_class_that_was_renamed_keeps_its_name_in_the_tool(site: Site, tool: FakeLabelStudio) -> None:
    site.project(classes=["cat", "hound"])
    with write_session(site.engine) as session:
        session.get_one(Project, 1).aliases = {"dog": "hound"}
    tool.add_pictures(1)
    tool.annotate(1, chosen("dog"))
    assert site.connect(tool).status_code == 201
    assert site.look()["refused"] == 0
    assert site.said() == {"1": ("ann@lab.local", "hound")}


def test_a_tool_project_has_one_project_and_the_other_way_round(site: Site, tool: FakeLabelStudio) -> None:
    site.project()
    assert site.connect(tool).status_code == 201
    said = refused(site.connect(tool), 409, "connected_already")
    assert f"'pets' is connected already: with project 7 of {tool.url}" in said
    site.project(name="others")
    said = refused(site.connect(tool, "p_2"), 409, "connected_already")
    assert "is connected already: with 'pets'" in said
    assert site.client.delete("/projects/p_1/integrations/label-studio").status_code == 204
    assert site.connect(tool, "p_2").status_code == 201


def test_items_of_another_kind(site: Site, tool: FakeLabelStudio) -> None:
    site.project(modality="text")
    assert "they are texts" in refused(site.connect(tool), 409, "modality_fixed")


@pytest.mark.parametrize("release", ["2.0.0", None])
def test_an_unknown_version_is_a_warning(site: Site, tool: FakeLabelStudio, release: str | None) -> None:
    tool.release = release
    site.project()
    answer = site.connect(tool)
    assert answer.status_code == 201
    assert "tested with 1.23" in answer.json()["warning"]


def test_without_a_connection(site: Site) -> None:
    site.project()
    at = "/projects/p_1/integrations/label-studio"
    for answer in (site.client.get(at), site.client.delete(at), site.client.post(f"{at}/sync")):
        refused(answer, 404, "not_connected")


@pytest.fixture
def called(site: Site, tool: FakeLabelStudio) -> tuple[Site, dict[str, str]]:
    """A connection that was looked at, and the header that the tool's calls carry."""
    tool.add_pictures(4)
    site.project(control_fraction=0)
    secret = site.connect(tool, callback_url=CALLBACK).json()["secret"]
    site.look()
    return site, {"X-Shortlist-Secret": secret}


def test_a_webhook_is_made_once_and_carries_the_secret(
    called: tuple[Site, dict[str, str]], tool: FakeLabelStudio
) -> None:
    site, header = called
    (hook,) = tool.webhooks
    assert hook["url"] == f"{CALLBACK}/integrations/label-studio/p_1/webhook"
    assert hook["headers"] == header
    tool.webhooks[0]["headers"] = {}  # as "Connect model" makes one by itself
    site.look()
    assert [each["headers"] for each in tool.webhooks] == [header]
    assert site.status()["webhook_accepted"]


def test_a_tool_that_refuses_the_address_is_asked_more_often(site: Site, tool: FakeLabelStudio) -> None:
    tool.refuses_webhooks = True
    site.project()
    site.connect(tool, callback_url=CALLBACK)
    told = site.look()
    assert (told["error"], told["webhook_accepted"]) == (None, False)
    assert "SSRF_PROTECTION_ENABLED=false" in told["warning"]


@pytest.mark.parametrize("sent", [{}, {"X-Shortlist-Secret": "f" * 64}, {"Authorization": "Basic !"}])
@pytest.mark.parametrize("project", ["p_1", "p_9", "nonsense"])
def test_a_forged_call_is_refused(
    called: tuple[Site, dict[str, str]], sent: dict[str, str], project: str
) -> None:
    site, _ = called
    at = f"/integrations/label-studio/{project}"
    for method, path in (("POST", "webhook"), ("POST", "setup"), ("POST", "predict"), ("GET", "versions")):
        headers = {"Authorization": ""} | sent
        answer = site.client.request(method, f"{at}/{path}", json={}, headers=headers)
        assert answer.status_code == 401, path


BODIES: list[Any] = [
    {"action": "ANNOTATION_CREATED", "annotation": {"id": 1}, "task": {"id": 1}, "project": {"id": 7}},
    {"action": "ANNOTATIONS_CREATED", "annotation": [{"id": 1}, {"id": 2}]},
    {"action": "ANNOTATIONS_DELETED", "annotations": [{"id": 77}]},
    {"action": "SOMETHING_NEW"},
    [],
]


def test_a_webhook_only_says_look_now(called: tuple[Site, dict[str, str]], tool: FakeLabelStudio) -> None:
    """Created, updated, deleted, skipped, as one or as a list, in any order, twice: what is true is asked for."""
    site, header = called
    first, second = tool.annotate(1, chosen("cat")), tool.annotate(2, chosen("dog"))
    tool.delete(first)
    tool.annotate(3, [], cancelled=True)
    for body in [*reversed(BODIES), *BODIES]:
        answer = site.client.post("/integrations/label-studio/p_1/webhook", json=body, headers=header)
        assert answer.status_code == 200
    assert site.syncer._hinted == {1}
    site.look()
    assert site.said() == {"2": ("ann@lab.local", "dog"), "3": ("ann@lab.local", None)}
    assert second["task"] == 2


def test_the_tool_sees_a_model(called: tuple[Site, dict[str, str]], tool: FakeLabelStudio) -> None:
    site, header = called
    password = base64.b64encode(f"shortlist:{header['X-Shortlist-Secret']}".encode()).decode()
    basic = {"Authorization": f"Basic {password}"}
    at = "/integrations/label-studio/p_1"
    assert site.client.get(f"{at}/health").json()["status"] == "UP"
    version = site.rank(3, 1)
    site.look()
    body = {
        "project": "7.1795336841",
        "schema": "<View/>",
        "access_token": "secret of somebody",
        "hostname": "",
    }
    with capture_logs() as logs:
        answer = site.client.post(f"{at}/setup", json=body, headers=basic)
    assert answer.json() == {"model_version": f"shortlist-{version}"}
    assert "secret of somebody" not in str(logs)
    assert site.client.get(f"{at}/versions", headers=basic).json() == {"versions": [f"shortlist-{version}"]}
    tasks = {"tasks": [{"id": number} for number in (1, 2, 3, 999)], "project": "7.1", "params": {}}
    results = site.client.post(f"{at}/predict", json=tasks, headers=basic).json()["results"]
    assert [each["score"] for each in results] == [0.5, 1.0, 0.0, 1.0]
    assert {each["model_version"] for each in results} == {f"shortlist-{version}"}
    bad_bodies: list[Any] = [{}, [], {"tasks": 3}, {"tasks": [{}]}, {"tasks": [{"id": "x"}]}]
    for bad in bad_bodies:
        assert site.client.post(f"{at}/predict", json=bad, headers=basic).status_code == 422
    assert site.client.post(f"{at}/predict", content=b"{", headers=basic).status_code == 422


def test_by_itself_at_once_and_after_a_restart(
    settings: Settings, engine: sa.Engine, tool: FakeLabelStudio
) -> None:
    """The service follows while it runs; what happened while it did not is found when it comes back."""
    with write_session(engine) as session:
        _, key = keys.create(session, keys.server_secret(settings), name="admin", role="admin")

    def started() -> TestClient:
        return TestClient(make_app(settings), headers={"Authorization": f"Bearer {key}"})

    tool.add_pictures(3)
    with started() as client:
        client.post("/projects", json={"name": "pets", "classes": ["cat", "dog"]})
        body = {"url": tool.url, "token": LEGACY, "tool_project": 7, "callback_url": CALLBACK}
        at = "/projects/p_1/integrations/label-studio"
        secret = client.post(at, json=body).json()["secret"]
        wait_for(lambda: client.get(at).json()["tasks"] == 3)
        tool.annotate(1, chosen("cat"))
        client.post("/integrations/label-studio/p_1/webhook", json={}, headers={"X-Shortlist-Secret": secret})
        wait_for(lambda: len(lines(client)) == 1)
    tool.annotate(2, chosen("dog"))
    with started() as client:
        client.post(f"{at}/sync")
        wait_for(lambda: len(lines(client)) == 2)
    assert {label["class"] for label in lines(client)} == {"cat", "dog"}


def lines(client: TestClient) -> list[dict[str, Any]]:
    return [json.loads(line) for line in client.get("/projects/p_1/labels").text.splitlines()]


def wait_for(happened: Any, seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_the_command_makes_the_project(settings: Settings, engine: sa.Engine, tool: FakeLabelStudio) -> None:
    told = connect.connected(engine, settings, Wanted(tool.url, LEGACY, 7), None)
    assert (told.project, told.id, told.warning) == ("Pets", "p_1", None)
    with read_session(engine) as session:
        project = session.get_one(Project, 1)
        assert (project.classes, project.modality) == (["cat", "dog"], "image")
    with pytest.raises(ToolProjectMissing):
        connect.connected(engine, settings, Wanted(tool.url, LEGACY, 8), "pets")
