"""Graphs for journeys: rings or stars with a tail; a key tells which."""

import json
from pathlib import Path
from typing import Any

import numpy as np


def graph(kind: str, seed: int) -> dict[str, Any]:
    """kind: `ring` or `star`; of 6 to 14 atoms, and a tail of 1 to 6."""
    rng = np.random.default_rng(seed)
    n, tail = int(rng.integers(6, 15)), int(rng.integers(1, 7))
    ring, star = [(node, (node + 1) % n) for node in range(n)], [(0, node) for node in range(1, n)]
    pairs = ring if kind == "ring" else star
    pairs += [(n + more - 1 if more else n - 1, n + more) for more in range(tail)]
    nodes = [
        {"id": node, "tag": str(rng.choice(["C", "N", "O"], p=[0.8, 0.1, 0.1]))} for node in range(n + tail)
    ]
    return {
        "directed": False,
        "nodes": nodes,
        "edges": [{"source": one, "target": other} for one, other in pairs],
    }


def write_graphs(path: Path, count: int) -> Path:
    """A JSONL file of node-link JSON, as objects and as strings of it."""
    kinds = [("ring", "star")[number % 2] for number in range(count)]
    with path.open("w", encoding="utf-8") as file:
        for number, kind in enumerate(kinds):
            made = graph(kind, number)
            cell = made if number % 3 else json.dumps(made)
            file.write(json.dumps({"key": f"{kind}-{number}", "graph": cell}) + "\n")
    return path


def graphml(nodes: int, edges: list[tuple[int, int]], tag: str | None = "C") -> bytes:
    head = '<key id="d0" for="node" attr.name="element" attr.type="string"/>' if tag is not None else ""
    data = f'<data key="d0">{tag}</data>' if tag is not None else ""
    inside = "".join(f'<node id="n{node}">{data}</node>' for node in range(nodes))
    inside += "".join(f'<edge source="n{one}" target="n{other}"/>' for one, other in edges)
    return (
        '<?xml version="1.0" encoding="UTF-8"?><graphml xmlns="http://graphml.graphdrawing.org/xmlns">'
        f'{head}<graph edgedefault="undirected">{inside}</graph></graphml>'
    ).encode()
