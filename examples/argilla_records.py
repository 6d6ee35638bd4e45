"""The next items as records of Argilla, with the head's suggestions; and the responses to them as labels.

    SHORTLIST_KEY=… python examples/argilla_records.py next ann records.json
    SHORTLIST_KEY=… python examples/argilla_records.py labels ann answered.json

Between the two, in Argilla: `dataset.records.from_json("records.json")`, then, once somebody has answered,
`dataset.records.to_json("answered.json")`. The dataset has a field `image` or `text` and a question `label`, and one
person answers it: `ann`. Reading the same file again stores nothing twice.
"""

import argparse
import base64
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from shortlist_client import BatchItem, Project, Shortlist

QUESTION = "label"


def next_records(project: Project, annotator: str, count: int) -> Iterator[dict[str, Any]]:
    """Records of items that are reserved for `reservation_ttl_s`; answers that come later count, too."""
    batch = project.next_batch(annotator, size=count, new=True)
    for item in batch.items:
        yield {
            "id": item.id,
            "fields": _fields(project, item),
            "metadata": {"key": item.key, "batch": batch.batch, "arm": item.arm},
            "suggestions": _suggestions(item),
        }


def _fields(project: Project, item: BatchItem) -> dict[str, str]:
    if item.content.text is not None:
        return {"text": item.content.text}
    kind = item.content.media_type or "image/jpeg"
    return {"image": f"data:{kind};base64,{base64.b64encode(project.read(item.id)).decode()}"}


def _suggestions(item: BatchItem) -> dict[str, Any]:
    found = item.prediction
    if found is None:  # control items are not to be swayed
        return {}
    value = found.class_name if found.classes is None else found.classes
    return {QUESTION: {"value": value, "score": found.probability, "agent": "shortlist"}}


def labels_of(records: Iterable[dict[str, Any]], annotator: str) -> Iterator[dict[str, Any]]:
    """Labels as `project.label` takes them; of records that somebody has answered."""
    for record in records:
        for response in record.get("responses", {}).get(QUESTION, [])[:1]:
            value = response["value"]
            said = {"classes": value} if isinstance(value, list) else {"class": value}
            yield {"item": record["id"], "batch": record["metadata"]["batch"], "annotator": annotator, **said}


def main() -> None:
    parser = argparse.ArgumentParser(description="Records of Argilla, and labels from them.")
    parser.add_argument("what", choices=("next", "labels"))
    parser.add_argument("annotator")
    parser.add_argument("file", type=Path)
    parser.add_argument("--project", help="by name or id; default: the only one")
    parser.add_argument("--count", type=int, default=50, help="of records")
    given = parser.parse_args()
    with Shortlist() as client:
        project = client.project(given.project)
        if given.what == "next":
            records = list(next_records(project, given.annotator, given.count))
            given.file.write_text(json.dumps(records, ensure_ascii=False), encoding="utf-8")
            print(f"{len(records)} records are in {given.file}.")
        else:
            records = json.loads(given.file.read_text(encoding="utf-8"))
            stored = project.label(list(labels_of(records, given.annotator)))
            print(f"{stored.accepted} labels are stored.")


if __name__ == "__main__":
    main()
