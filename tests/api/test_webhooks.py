"""Webhooks through the API; what happens to deliveries is in tests/service/webhooks/test_webhooks.py."""

from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from service.settings import Settings
from service.store.session import write_session
from service.store.tables import Webhook
from tests import factories
from tests.api.conftest import Callers, created
from tests.journeys.site import until
from tests.service.receivers import receiver

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
AT = "/projects/p_1/webhooks"
URL = "https://tool.example.com/hook"


def test_made_shown_once_listed_and_deleted(admin: TestClient) -> None:
    created(admin)
    answer = admin.post(AT, json={"url": URL, "events": ["job.failed"]})
    made = answer.json()
    assert (answer.status_code, answer.headers["Cache-Control"]) == (201, "no-store")
    assert made["secret"].startswith("whsec_")
    listed = admin.get(AT).json()["items"]
    assert listed == [{name: value for name, value in made.items() if name != "secret"}]
    assert admin.get(f"{AT}/{made['id']}").json() == listed[0]
    every = admin.post(AT, json={"url": URL}).json()
    assert "round.closed" in every["events"]
    assert every["secret"] != made["secret"]
    assert admin.delete(f"{AT}/{made['id']}").status_code == 204
    assert [each["id"] for each in admin.get(AT).json()["items"]] == [every["id"]]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "url"),
        ({"url": "ftp://example.com"}, "url"),
        ({"url": "http://127.0.0.1:9/"}, "url"),
        ({"url": URL, "events": []}, "events"),
        ({"url": URL, "events": ["round.open"]}, "events[0]"),
        ({"url": URL, "secret": "mine"}, "secret"),
    ],
)
def test_what_is_wrong_is_named(admin: TestClient, body: dict[str, Any], field: str) -> None:
    created(admin)
    answer = admin.post(AT, json=body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == field


def test_loopback_says_what_would_allow_it(admin: TestClient) -> None:
    created(admin)
    refused = admin.post(AT, json={"url": "http://localhost:9/"}).json()
    assert refused["code"] == "webhook_address_refused"
    assert "SHORTLIST_WEBHOOKS_TO_PRIVATE_ADDRESSES=true" in refused["detail"]


def test_not_more_than_a_few(admin: TestClient) -> None:
    created(admin)
    for _ in range(20):
        assert admin.post(AT, json={"url": URL}).status_code == 201
    refused = admin.post(AT, json={"url": URL})
    assert (refused.status_code, refused.json()["code"]) == (409, "too_many_webhooks")


def test_another_projects_are_not_found(admin: TestClient, caller: Callers, engine: sa.Engine) -> None:
    created(admin)
    created(admin, name="other")
    webhook_id = admin.post(AT, json={"url": URL}).json()["id"]
    for answer in (
        admin.get(f"/projects/p_2/webhooks/{webhook_id}"),
        admin.delete(f"/projects/p_2/webhooks/{webhook_id}"),
        admin.post(f"/projects/p_2/webhooks/{webhook_id}/test"),
        admin.get(f"{AT}/w_zz/deliveries"),
        admin.get(f"{AT}/nonsense"),
    ):
        assert answer.status_code == 404


class TestDelivered:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"webhooks_to_private_addresses": True})

    def test_by_the_service_itself(self, admin: TestClient) -> None:
        created(admin)
        with receiver() as there:
            made = admin.post(AT, json={"url": there.url}).json()
            sent = admin.post(f"{AT}/{made['id']}/test")
            assert (sent.status_code, sent.json()["event"]) == (202, "webhook.test")
            until(lambda: there.received)
            assert there.received[0].id == sent.json()["id"]
            assert there.received[0].signed_with(made["secret"])

            def delivered() -> bool:
                newest = admin.get(f"{AT}/{made['id']}/deliveries").json()["items"][0]
                return bool(newest["state"] == "delivered")

            until(delivered)

    def test_dead_ones_are_shown_and_sent_again(self, admin: TestClient, engine: sa.Engine) -> None:
        created(admin)
        webhook_id = admin.post(AT, json={"url": "http://127.0.0.1:9/"}).json()["id"]
        with write_session(engine) as session:
            webhook = session.get_one(Webhook, 1)
            for _ in range(2):
                factories.make_delivery(
                    session, webhook=webhook, state="dead", attempts=7, status=500, error="500 Oops."
                )
            factories.make_delivery(session, webhook=webhook, next_at=9e9)
        assert admin.get(f"{AT}/{webhook_id}").json()["dead"] == 2
        assert admin.get(AT).json()["items"][0]["pending"] == 1
        dead = admin.get(f"{AT}/{webhook_id}/deliveries", params={"state": "dead", "limit": 1}).json()
        assert dead["items"][0]["error"] == "500 Oops."
        rest = admin.get(
            f"{AT}/{webhook_id}/deliveries", params={"state": "dead", "cursor": dead["next_cursor"]}
        )
        assert len(rest.json()["items"]) == 1
        assert admin.post(f"{AT}/{webhook_id}/send-again").json() == {"queued": 2}
        assert admin.post(f"{AT}/{webhook_id}/send-again").json() == {"queued": 0}
