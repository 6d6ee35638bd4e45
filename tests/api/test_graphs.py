"""Projects of graphs over HTTP: as JSON in the call, and as they are shown."""

import json

import pytest
from fastapi.testclient import TestClient

from tests.api.conftest import created
from tests.journeys.drawings import graph

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def test_graphs_in_the_call(admin: TestClient, anyone: TestClient) -> None:
    created(admin, modality="graph")
    lines = [
        json.dumps({"key": "ring", "text": json.dumps(graph("ring", 1))}),
        json.dumps({"key": "broken", "text": '{"nodes": []}'}),
    ]
    answer = admin.post(
        "/projects/p_1/items", content="\n".join(lines), headers={"Content-Type": "application/x-ndjson"}
    ).json()
    assert (answer["added"], answer["refused"]) == (1, [{"line": 2, "code": "text_unusable"}])

    (item,) = admin.post("/next-batch", json={"annotator": "ann"}).json()["items"]
    content = item["content"]
    assert (content["kind"], content["media_type"], content["text"]) == ("graph", "image/png", None)
    shown = anyone.get(content["url"])
    assert (shown.headers["Content-Type"], shown.content[:4]) == ("image/png", b"\x89PNG")
    assert admin.get(f"/projects/p_1/items/{item['id']}").json()["facts"]["nodes"] == len(
        graph("ring", 1)["nodes"]
    )
