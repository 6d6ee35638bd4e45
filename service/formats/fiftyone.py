"""FiftyOne's own format (https://docs.voxel51.com/user_guide/export_datasets.html, FiftyOneDataset): `metadata.json`,
the schema, and `samples.json`, the samples, both as MongoDB writes documents in JSON.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import Any

from service.formats import Format, Labels, NoRow, NumberedRow, Row, row_of, unreadable
from service.formats.archives import ZipWriter, any_name, opened
from service.formats.json_files import dumped, load, parsed, peek

_SAMPLES, _METADATA = "samples.json", "metadata.json"
_TRUTH = "ground_truth"  # as its tutorials and importers call the field
_KEY = "shortlist_key"
# Where a label of a kind has its parts; a label without the ending is one part alone.
_WHOLE = {"Classifications": "classifications"}
_DRAWN = {"Detections": "detections", "Polylines": "polylines", "Keypoints": "keypoints"}
_PARTS = _WHOLE | _DRAWN
_KINDS = {kind.removesuffix("s"): kind for kind in _PARTS} | {kind: kind for kind in _PARTS}
_VERSION = "0.26.0"  # of the schema below; FiftyOne migrates it to its own


class FiftyOne(Format):
    """Classifications, and boxes, polylines and keypoints. `samples.json` of a folder that FiftyOne exported is read,
    or an archive of the folder; an archive is written, without the images, which `filepath` names. The labels are those
    of the field `ground_truth`, else of the only fields with labels."""

    name = "fiftyone"
    endings = (".zip", ".json")
    media_type = "application/zip"

    def fits(self, path: Path) -> bool:
        if path.suffix.lower() == ".zip":
            return any_name(path, lambda name: PurePosixPath(name).name == _SAMPLES)
        found = peek(path) if super().fits(path) else None
        samples = found.get("samples") if isinstance(found, dict) else None
        first = samples[0] if isinstance(samples, list) and samples else None
        return isinstance(first, dict) and "filepath" in first

    def read(self, path: Path) -> Generator[NumberedRow]:
        found = _data(path)
        samples = found.get("samples") if isinstance(found, dict) else None
        if not isinstance(samples, list):
            raise unreadable(path, f"this is no {_SAMPLES} of FiftyOne: it has no list `samples`")
        fields = _fields(path, samples)
        for number, sample in enumerate(samples, 1):
            if row := _row(sample, fields):
                yield number, row

    def write(self, labels: Labels) -> Iterator[bytes]:
        archive = ZipWriter()
        fields: dict[str, str] = {}  # those that are used, and their kinds
        yield from archive.add_pieces(_SAMPLES, _samples(labels, fields))
        yield archive.add(_METADATA, dumped(_metadata(fields)))
        yield archive.close(labels.notes)


def _data(path: Path) -> Any:
    if path.suffix.lower() != ".zip":
        return load(path)
    with opened(path) as archive:
        for entry in archive.files:
            if PurePosixPath(entry.filename).name == _SAMPLES:
                return parsed(path, archive.read(entry))
    raise unreadable(path, f"it holds no {_SAMPLES}")


def _fields(path: Path, samples: Sequence[Any]) -> list[str]:
    """The fields that hold the labels, of each kind one; those of the whole image first."""
    kinds: dict[str, str] = {}
    for sample in samples:
        for name, value in sample.items() if isinstance(sample, dict) else ():
            if (kind := _kind(value)) is not None:
                kinds.setdefault(name, kind)
    truth = {name: kind for name, kind in kinds.items() if name.startswith(_TRUTH)}
    chosen = truth or kinds
    if len(set(chosen.values())) < len(chosen):
        names = ", ".join(sorted(chosen))
        raise unreadable(
            path,
            f"several fields have labels ({names}), and it is not clear which are true: export one of them alone, as "
            f"dataset.select_fields({min(chosen)!r})",
        )
    return sorted(chosen, key=lambda name: list(_PARTS).index(chosen[name]))


def _kind(label: Any) -> str | None:
    """A label's kind is that of the list which holds it, or which it is; None for what names no classes."""
    kind = label.get("_cls") if isinstance(label, dict) else None
    return _KINDS.get(kind) if isinstance(kind, str) else None


def _row(sample: Any, fields: Sequence[str]) -> Row | NoRow | None:
    """None for a sample that nobody has labeled."""
    key = sample.get(_KEY) or sample.get("filepath") if isinstance(sample, dict) else None
    if not isinstance(key, str) or not key:
        return NoRow("key", "a sample is an object with a `filepath`")
    whole: list[object] = []
    drawn: list[Row] = []
    looked_at = False
    for name in fields:
        label = sample.get(name)
        if (kind := _kind(label)) is None:
            continue
        looked_at = True
        parts = label.get(_PARTS[kind]) if label["_cls"] == kind else [label]
        if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
            return NoRow("class", f"`{name}` of {key!r} has no list `{_PARTS[kind]}` of objects")
        if kind in _WHOLE:
            whole += [part.get("label") for part in parts]
        else:
            drawn += parts
    if not looked_at:
        return None
    on_drawn = [part.get("label") for part in drawn]
    if not whole and not drawn:
        return NoRow(
            "class", f"{key!r} has no label, and a label here has a class", {"key": key, "classes": []}
        )
    more = {"annotation": {"fiftyone": drawn}} if drawn else {}
    return row_of({"key": key}, whole or on_drawn, repr(key), [*whole, *on_drawn], **more)


def _samples(labels: Labels, fields: dict[str, str]) -> Iterator[bytes]:
    before = b'{"samples": [\n'
    for row in labels.rows():
        key = str(row["key"])
        sample: Row = {
            "_id": _id(key),
            "filepath": row.get("uri") or key,
            "tags": [],
            "metadata": None,
            "_media_type": "image",
            _KEY: key,
        }
        several = "classes" in row
        classes = [
            {"_id": _id(key, name), "_cls": "Classification", "tags": [], "label": name}
            for name in (row["classes"] if several else [row["class"]])
        ]
        if several:
            sample[_TRUTH] = {"_cls": "Classifications", "classifications": classes}
        else:
            sample[_TRUTH] = classes[0]
        fields[_TRUTH] = "Classifications" if several else "Classification"
        for region in labels.regions(row, "fiftyone"):
            kind = _kind(region)
            if kind not in _DRAWN or kind == region["_cls"]:
                labels.left_out["a region is none of FiftyOne's, as `_cls` does not say, and stays here"] += 1
                continue
            name = f"{_TRUTH}_{_DRAWN[kind]}"
            fields[name] = kind
            sample.setdefault(name, {"_cls": kind, _DRAWN[kind]: []})[_DRAWN[kind]].append(region)
        yield before + dumped(sample)
        before = b",\n"
    yield (b"" if before == b",\n" else before) + b"\n]}\n"


def _id(*of: str) -> Row:
    """The same again for the same, as exports are; it begins with a time, which is none."""
    return {"$oid": "0" * 8 + blake2b("\n".join(of).encode(), digest_size=8).hexdigest()}


def _metadata(fields: Mapping[str, str]) -> Row:
    """The document of a dataset, as far as FiftyOne does not make it itself."""
    return {
        "version": _VERSION,
        "name": "shortlist",
        "media_type": "image",
        "sample_fields": [
            _field("id", "ObjectIdField", db_field="_id"),
            _field("filepath", "StringField"),
            _field("tags", "ListField", subfield="fiftyone.core.fields.StringField"),
            _field(
                "metadata", "EmbeddedDocumentField", embedded_doc_type="fiftyone.core.metadata.ImageMetadata"
            ),
            _field(_KEY, "StringField"),
            *(
                _field(name, "EmbeddedDocumentField", embedded_doc_type=f"fiftyone.core.labels.{kind}")
                for name, kind in fields.items()
            ),
        ],
    }


def _field(name: str, kind: str, **more: str) -> Row:
    return {
        "name": name,
        "ftype": f"fiftyone.core.fields.{kind}",
        "embedded_doc_type": None,
        "subfield": None,
        "fields": [],
        "db_field": name,
        "description": None,
        "info": None,
        **more,
    }


FORMAT = FiftyOne()
