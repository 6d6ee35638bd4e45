"""The whole way of a graph: from a table to a ranking, a pretext model, classes and the next ranking; broken ones stop
nothing.
"""

import io
import json

import httpx2 as httpx
from PIL import Image

from tests.journeys.drawings import graphml, write_graphs
from tests.journeys.site import PATIENCE_S, Json, Project, Site, until
from tests.journeys.test_recordings import label


def test_from_a_table_to_the_next_ranking(site: Site) -> None:
    folder = site.images / "graphs"
    folder.mkdir()
    project = Project(
        site, "graphs", ("ring", "star"), round_size=20, retrain_min_labels=10, pretext_epochs=2
    )
    assert project.add(write_graphs(folder / "graphs.jsonl", 120))["added"] == 120
    described = site.get(project.at)
    assert (described["modality"], described["pretext_task"]["name"]) == ("graph", "attribute_masking")
    provisional: Json = until(lambda: project.metrics()["ranking"])
    assert "Provisional" in provisional["note"]
    first = project.next_batch("ann", 10)
    content = first["items"][0]["content"]
    assert (content["kind"], content["media_type"], content["text"]) == ("graph", "image/png", None)
    drawn = httpx.get(str(site.http.base_url).rstrip("/") + content["preview_url"], timeout=PATIENCE_S)
    assert drawn.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(drawn.content)).size == (256, 256)

    project.pretrain()
    assert project.metrics()["score_run"]["pretext_model"] is not None
    assert all(item["pretext_loss"] > 0 for item in project.items(split="pool"))

    label(project, first)
    label(project, project.next_batch("ann", 10))
    until(lambda: project.rounds()[0]["state"] == "measured")
    until(lambda: project.metrics()["ranking"]["labels_used"] == 20)
    assert any(item["prediction"] is not None for item in project.next_batch("ann", 20)["items"])


def test_broken_graphs_are_told_and_stop_nothing(site: Site) -> None:
    folder = site.images / "broken-graphs"
    folder.mkdir()
    whole = graphml(6, [(0, 1), (1, 2), (2, 0), (3, 4)])
    good = {
        "whole.graphml": whole,
        "loops.graphml": graphml(3, [(0, 0), (0, 1), (1, 0), (1, 2)]),
        "apart.graphml": graphml(5, []),
        "plain.graphml": graphml(4, [(0, 1), (1, 2)], tag=None),
        "one.graphml": graphml(1, []),
    }
    million = graphml(1_500, [(one, other) for one in range(1_500) for other in range(one)][:1_000_000])
    bad = {
        "empty.graphml": b"",
        "cut.graphml": whole[: len(whole) // 2],
        "nothing.graphml": graphml(0, []),
        "text.graphml": b"Ceci n'est pas un graphe.",
        "page.graphml": b"<!DOCTYPE html><html><body>Sign in</body></html>",
        "bomb.graphml": b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "c">]><graphml>&b;</graphml>',
        "dangling.graphml": graphml(3, [(0, 7)]),
        "other.graphml": b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        "twins.graphml": whole.replace(b'id="n1"', b'id="n0"'),
        "million.graphml": million,
    }
    for name, data in (good | bad).items():
        (folder / name).write_bytes(data)

    project = Project(site, "broken graphs", ("ring", "star"))
    counted = project.add(folder)

    assert (counted["added"], counted["quarantined"]) == (len(good), len(bad))
    reasons = {item["key"]: item["quarantine_reason"] for item in project.items(state="quarantined")}
    assert set(reasons) == set(bad)
    for name, words in {
        "empty": "empty",
        "cut": "truncated XML",
        "nothing": "no nodes",
        "text": "not a graph",
        "page": "web page",
        "bomb": "entities",
        "dangling": "names the node n7",
        "other": "no GraphML",
        "twins": "two of its nodes",
        "million": "SHORTLIST_MAX_GRAPH_BYTES",
    }.items():
        assert words in reasons[f"{name}.graphml"], reasons[f"{name}.graphml"]
    facts = {item["key"]: item["facts"] for item in project.items(state="available")}
    assert facts["loops.graphml"] == {"nodes": 3, "edges": 2, "tags": 1, "loops": 1}
    assert facts["apart.graphml"] == {"nodes": 5, "edges": 0, "tags": 1}
    assert json.dumps(project.next_batch("ann", 3)["items"])
