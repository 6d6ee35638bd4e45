"""Classes change over the API: tried first, once, with an ETag, by admins; old names stay good."""

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from service.settings import Settings
from tests.api.conftest import Callers, created


@pytest.fixture
def project(admin: TestClient, settings: Settings) -> str:
    found = created(admin, classes=["kitten", "tomcat", "dog"])
    at, root = f"/projects/{found['id']}", settings.source_roots[0]
    entries = [{"key": f"{number}.png", "uri": f"{root}/{number}.png"} for number in range(4)]
    entries.append({"key": "test.png", "uri": f"{root}/test.png", "split": "test", "class": "kitten"})
    assert admin.post(f"{at}/items", json={"items": entries}).json()["added"] == 5
    label(admin, at, "0.png", "kitten")
    label(admin, at, "1.png", "tomcat")
    return at


def label(client: TestClient, at: str, key: str, name: str) -> str:
    answer = client.post(f"{at}/labels", json={"labels": [{"key": key, "class": name, "annotator": "ann"}]})
    assert answer.status_code == 200, answer.text
    outcome: str = answer.json()["results"][0]["outcome"]
    return outcome


MERGE = {"kind": "merge", "classes": ["kitten", "tomcat"], "to": "cat"}


def test_a_dry_run_says_what_a_change_then_does(admin: TestClient, project: str) -> None:
    before = admin.get(project)
    tried = admin.post(f"{project}/classes/changes", params={"dry_run": True}, json=MERGE)
    assert tried.status_code == 200, tried.text
    assert (tried.json()["id"], tried.json()["created_at"]) == (None, None)
    assert admin.get(project).headers["ETag"] == before.headers["ETag"] == tried.headers["ETag"]
    done = admin.post(f"{project}/classes/changes", json=MERGE).json()
    effects = {
        "labels": 2,
        "earlier_labels": 0,
        "items": 2,
        "test_items": 1,
        "gold_items": 0,
        "split_items": 0,
    }
    assert done["effects"] == effects
    assert {name: done[name] for name in ("effects", "says", "classes_after")} == {
        name: tried.json()[name] for name in ("effects", "says", "classes_after")
    }
    assert admin.get(project).json()["classes"] == ["cat", "dog"]
    (change,) = admin.get(f"{project}/classes/changes").json()["items"]
    assert (change["id"], change["kind"], change["classes"], change["to"], change["by"]) == (
        done["id"],
        "merge",
        ["kitten", "tomcat"],
        "cat",
        "admin",
    )
    listed = admin.get(f"{project}/classes").json()["items"]
    assert [(one["name"], one["aliases"], one["labels"], one["test_items"]) for one in listed] == [
        ("cat", ["kitten", "tomcat"], 2, 1),
        ("dog", [], 0, 0),
    ]
    first = admin.get(f"{project}/classes", params={"limit": 1}).json()
    second = admin.get(f"{project}/classes", params={"limit": 1, "cursor": first["next_cursor"]}).json()
    assert [first["items"][0]["name"], second["items"][0]["name"]] == ["cat", "dog"]


def test_history_and_exports_say_what_was_said_and_are_read_again(
    admin: TestClient, project: str, settings: Settings
) -> None:
    admin.post(f"{project}/classes/changes", json=MERGE)
    assert label(admin, project, "2.png", "kitten") == "accepted"  # it was on its way
    item = admin.get(f"{project}/items", params={"class": "kitten", "split": "pool"}).json()["items"][0]
    assert item["class"] == "cat"
    (said,) = admin.get(f"{project}/items/{item['id']}").json()["labels"]
    assert (said["class"], said["said"]) == ("cat", "kitten")
    exported = admin.get(f"{project}/labels", headers={"Accept": "text/csv"}).content
    assert (
        admin.post(
            f"{project}/items",
            json={
                "items": [
                    {
                        "key": "t2.png",
                        "uri": f"{settings.source_roots[0]}/t2.png",
                        "split": "test",
                        "class": "tomcat",
                    },
                ]
            },
        ).json()["added"]
        == 1
    )

    elsewhere = created(admin, name="elsewhere", classes=["cat", "dog"])
    at, root = f"/projects/{elsewhere['id']}", settings.source_roots[0]
    admin.post(
        f"{at}/items", json={"items": [{"key": f"{n}.png", "uri": f"{root}/{n}.png"} for n in range(4)]}
    )
    answer = admin.post(f"{at}/labels/import", content=exported, headers={"Content-Type": "text/csv"})
    assert answer.json()["outcomes"] == {"accepted": 3}, answer.text
    again = [
        line.split(b",")[1:5]
        for line in admin.get(f"{at}/labels", headers={"Accept": "text/csv"}).content.split()
    ]
    assert again == [line.split(b",")[1:5] for line in exported.split()]


def test_a_key_of_a_dry_run_is_not_the_key_of_the_change(admin: TestClient, project: str) -> None:
    once = {"Idempotency-Key": "merge-1"}
    tried = admin.post(f"{project}/classes/changes", params={"dry_run": True}, json=MERGE, headers=once)
    assert tried.status_code == 200
    reused = admin.post(f"{project}/classes/changes", json=MERGE, headers=once)
    assert reused.json()["code"] == "idempotency_key_reused"
    once["Idempotency-Key"] = "merge-2"
    done = admin.post(f"{project}/classes/changes", json=MERGE, headers=once)
    again = admin.post(f"{project}/classes/changes", json=MERGE, headers=once)
    assert again.json() == done.json()
    assert again.headers["Idempotency-Replayed"] == "true"
    assert len(admin.get(f"{project}/classes/changes").json()["items"]) == 1


def test_a_stale_etag_changes_nothing(admin: TestClient, project: str) -> None:
    stale = {"If-Match": admin.get(project).headers["ETag"]}
    rename = {"kind": "rename", "classes": ["dog"], "to": "hound"}
    assert admin.post(f"{project}/classes/changes", json=rename, headers=stale).status_code == 200
    answer = admin.post(f"{project}/classes/changes", json=MERGE, headers=stale)
    assert (answer.status_code, answer.json()["code"]) == (412, "project_changed")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"kind": "rename", "classes": ["cow"], "to": "cat"}, 422, "classes[0]"),
        ({"kind": "rename", "classes": [], "to": "cat"}, 422, "classes"),
        ({"kind": "split", "classes": ["kitten"]}, 422, "kind"),
        ({"kind": "rename", "classes": ["kitten"], "to": " "}, 422, "to"),
        ({"kind": "rename", "classes": ["kitten"], "to": "x" * 201}, 422, "to"),
        ({"kind": "rename", "classes": ["kitten"], "to": "dog"}, 422, "to"),
        ({"kind": "remove", "classes": ["kitten"]}, 409, None),
    ],
)
def test_a_wrong_field_is_named(
    admin: TestClient, project: str, body: dict[str, object], status: int, field: str | None
) -> None:
    answer = admin.post(f"{project}/classes/changes", json=body)
    assert answer.status_code == status, answer.text
    problem = answer.json()
    fields = [each["field"] for each in problem.get("errors", [])] or [problem.get("field")]
    assert field in fields
    assert len(admin.get(project).json()["classes"]) == 3


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_only_admins_change_classes(caller: Callers, project: str, engine: sa.Engine) -> None:
    for role in ("reader", "annotator"):
        answer = caller(role).post(f"{project}/classes/changes", json=MERGE)
        assert answer.status_code == 403, role
    assert caller("reader").get(f"{project}/classes").status_code == 200


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_names_that_are_html_commas_or_right_to_left_are_names(admin: TestClient, project: str) -> None:
    odd = ['<b onclick="x">', "cat, small", "\u202eright", 'a,"b"', "👕"]
    assert admin.post(f"{project}/classes/changes", json={"kind": "add", "classes": odd}).status_code == 200
    for name in odd:
        assert label(admin, project, "3.png", name) in ("accepted", "revised")
        rename = {"kind": "rename", "classes": [name], "to": f"{name}, new"}
        assert admin.post(f"{project}/classes/changes", json=rename).status_code == 200
    assert admin.get(project).json()["classes"][3:] == [f"{name}, new" for name in odd]
