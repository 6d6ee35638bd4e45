"""Label Studio's JSON: tasks with their annotations, as its "JSON" export writes and its import reads them."""

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from service.formats import Format, Labels, NoRow, NumberedRow, Row, row_of, unreadable
from service.formats.json_files import dumped, load, peek

_NAMES_OF_CLASSES = "labels"  # `rectanglelabels`, `brushlabels`, `labels`, … hold classes


class LabelStudio(Format):
    """A task for each item. Results are written as Label Studio gave them, and else as a choice (`from_name` label,
    `to_name` item). An item is found by `key` in the task's data, else by the path or name of its file."""

    name = "label-studio"
    endings = (".json",)
    media_type = "application/json"

    def fits(self, path: Path) -> bool:
        found = peek(path) if super().fits(path) else None
        first = found[0] if isinstance(found, list) and found else None
        return isinstance(first, dict) and {"data", "annotations"} <= first.keys()

    def read(self, path: Path) -> Generator[NumberedRow]:
        tasks = load(path)
        if not isinstance(tasks, list):
            raise unreadable(path, "this is no export of Label Studio: it is no array of tasks")
        number = 0
        for task in tasks:
            annotations = task.get("annotations") if isinstance(task, dict) else None
            for annotation in annotations if isinstance(annotations, list) else ():
                number += 1
                if isinstance(annotation, dict):
                    yield number, _row(task, annotation)
                else:
                    yield number, NoRow("line", "an annotation is an object")

    def write(self, labels: Labels) -> Iterator[bytes]:
        before = b"[\n"
        for row in labels.rows():
            result = _result_of(row.get("annotation"))
            if result is None:
                labels.regions(row, "label-studio")  # noted where it is in another format
                choice = {"from_name": "label", "to_name": "item", "type": "choices"}
                classes = row["classes"] if "classes" in row else [row["class"]]
                result = [{**choice, "value": {"choices": classes}}] if classes else []
            task = {
                "data": {"key": row["key"], "image": row.get("uri") or row["key"]},
                "annotations": [{"result": result, "was_cancelled": False}],
            }
            yield before + dumped(task)
            before = b",\n"
        yield (b"[" if before == b"[\n" else b"\n") + b"]\n"


def _result_of(annotation: Any) -> list[Any] | None:
    """The results as Label Studio gave them, in a file or over its connection; None where that is something else."""
    if isinstance(annotation, dict):
        annotation = annotation.get("result")
    if (
        isinstance(annotation, list)
        and annotation
        and all(isinstance(each, dict) and {"type", "value"} <= each.keys() for each in annotation)
    ):
        return annotation
    return None


def _row(task: Row, annotation: Row) -> Row | NoRow:
    key = _key(task)
    if key is None:
        return NoRow("key", f"the data of task {task.get('id')} names no item: neither `key` nor a file")
    annotator = _annotator(annotation.get("completed_by"))
    own: Row = {"key": key, **({"annotator": annotator} if annotator else {})}
    if annotation.get("was_cancelled"):
        return {**own, "skip": "other"}
    result = annotation.get("result")
    if not isinstance(result, list) or not result:
        nothing = {**own, "classes": []} if result == [] else None
        return NoRow("class", f"the annotation of {key!r} is empty, and a label here has a class", nothing)
    plain = len(result) == 1 and isinstance(result[0], dict) and result[0].get("type") == "choices"
    found = [name for each in result for name in _classes(each)]
    more: Row = {} if plain else {"annotation": {"result": result}}
    return row_of(own, found, repr(key), None, **more)


def _key(task: Row) -> str | None:
    data = task.get("data")
    if not isinstance(data, dict):
        return None
    if isinstance(data.get("key"), str):
        return str(data["key"])
    for name in ("image", "text", "audio", "html", *data):
        place = data.get(name)
        if isinstance(place, str) and place:
            parts = urlsplit(place) if "://" in place or place.startswith("/data/") else None
            if parts is None:
                return place
            local = parse_qs(parts.query).get("d")
            return unquote(local[0] if local else parts.path.rpartition("/")[2])
    return None


def _annotator(completed_by: Any) -> str | None:
    if isinstance(completed_by, dict):
        completed_by = completed_by.get("email") or completed_by.get("id")
    return None if completed_by is None else str(completed_by)


def _classes(region: Any) -> list[object]:
    """The classes that a region or a choice says."""
    value = region.get("value") if isinstance(region, dict) else None
    if not isinstance(value, dict):
        return []
    found: list[object] = []
    for name, said in value.items():
        if isinstance(said, list) and (name == "choices" or name.endswith(_NAMES_OF_CLASSES)):
            found += [each for each in said if isinstance(each, str)]
        elif isinstance(said, list) and name == "taxonomy":
            found += [
                path[-1] for path in said if isinstance(path, list) and path and isinstance(path[-1], str)
            ]
    return found


FORMAT = LabelStudio()
