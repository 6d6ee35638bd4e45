"""Broken graphs stop nothing."""

import json

from tests.journeys.drawings import graphml
from tests.journeys.site import Project, Site


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
        "dangling": 'names the node "n7"',
        "other": "no GraphML",
        "twins": "two of its nodes",
        "million": "SHORTLIST_MAX_GRAPH_BYTES",
    }.items():
        assert words in reasons[f"{name}.graphml"], reasons[f"{name}.graphml"]
    facts = {item["key"]: item["facts"] for item in project.items(state="available")}
    assert facts["loops.graphml"] == {"nodes": 3, "edges": 2, "tags": 1, "loops": 1}
    assert facts["apart.graphml"] == {"nodes": 5, "edges": 0, "tags": 1}
    assert json.dumps(project.next_batch("ann", 3)["items"])
