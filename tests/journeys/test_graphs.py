"""Broken graphs stop nothing; the nodes of one graph are items like any others."""

import json
from pathlib import Path

import numpy as np

from tests.journeys.drawings import graphml
from tests.journeys.site import Project, Site, until


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


def test_the_nodes_of_one_graph_are_imported_trained_on_and_labeled(site: Site) -> None:
    """People of two clubs: each is an item, with those around them."""
    folder = site.images / "people"
    folder.mkdir()
    rng = np.random.default_rng(0)
    clubs = [("chess", "rowing")[person % 2] for person in range(40)]
    # Each knows two of the own club; each tenth a stranger, too.
    edges = {(person, (person + 2 * step) % 40) for person in range(40) for step in (1, 2)}
    edges |= {(person, int(rng.integers(40)) // 2 * 2 + 1) for person in range(0, 40, 10)}
    lines = [*(f"p{one} p{other}" for one, other in sorted(edges)), "# nodes", "id age club"]
    lines += [f"p{person} {20 + person % 3} {club}" for person, club in enumerate(clubs)]
    (folder / "people.edges").write_text("\n".join(lines))
    everybody = f"{folder / 'people.edges'}#nodes&hops=1&tag=age"

    project = Project(site, "people", ("chess", "rowing"), round_size=10, retrain_min_labels=10)
    counted = project.add(Path(everybody))
    assert site.get(project.at)["modality"] == "graph"
    assert (counted["added"], counted["quarantined"]) == (40, 0), counted
    project.pretrain()

    batch = project.next_batch("ann", 10)
    assert {item["content"]["media_type"] for item in batch["items"]} == {"image/png"}
    assert min(item["facts"]["nodes"] for item in project.items()) >= 5  # with four friends at least
    labels = [
        {"item": item["id"], "class": clubs[int(item["key"][1:])], "annotator": "ann"}
        for item in batch["items"]
    ]
    site.post(f"{project.at}/labels", {"labels": labels})
    until(lambda: project.metrics()["ranking"]["labels_used"] == 10)
    assert all(item["pretext_loss"] > 0 for item in project.items(split="pool"))
