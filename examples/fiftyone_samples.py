"""Images of FiftyOne as the pool; what Shortlist makes of them, back to be looked at; and what was tagged there.

    SHORTLIST_KEY=… python examples/fiftyone_samples.py add exported
    SHORTLIST_KEY=… python examples/fiftyone_samples.py show exported --count 50
    SHORTLIST_KEY=… python examples/fiftyone_samples.py queue exported --tag interesting

`exported` is a folder that FiftyOne wrote, of a dataset or a view, as `fo.types.FiftyOneDataset`; FiftyOne itself is
not needed here. `add` makes an item of each image, by its `filepath`. `show` gives each sample in the folder
`shortlist_rank` (1 is wanted most; none where it is not ranked) and `shortlist_class`, and the first ones the tag
`shortlist-next`. `queue` has samples with a tag labeled before those of the ranking. The service must see the files at
the same paths, below `SHORTLIST_SOURCE_ROOTS`.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

from shortlist_client import Project, Shortlist

RANK, CLASS, NEXT = "shortlist_rank", "shortlist_class", "shortlist-next"
FIELDS = {RANK: "fiftyone.core.fields.IntField", CLASS: "fiftyone.core.fields.StringField"}


class Exported:
    """The folder; `samples` are changed in place, and written by `save`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.metadata = read(self.folder / "metadata.json")
        self.samples: list[dict[str, Any]] = read(self.folder / "samples.json").get("samples", [])
        if not {"version", "sample_fields"} <= self.metadata.keys():
            raise SystemExit(f"{folder} was written by a FiftyOne before 0.8: export it with a newer one.")

    def path_of(self, sample: dict[str, Any]) -> str:
        return str(self.folder / sample["filepath"])  # which may be absolute

    def declare(self) -> None:
        """The fields as the schema describes any other; FiftyOne makes new ones in the same way."""
        fields = self.metadata["sample_fields"]
        (like,) = (field for field in fields if field["name"] == "filepath")
        known = {field["name"] for field in fields}
        fields += [
            {**like, "name": name, "db_field": name, "ftype": ftype}
            for name, ftype in FIELDS.items()
            if name not in known
        ]

    def save(self) -> None:
        """The schema first: a field without values is none that FiftyOne stumbles over."""
        for name, content in (("metadata.json", self.metadata), ("samples.json", {"samples": self.samples})):
            new = self.folder / f"{name}.new"
            new.write_text(json.dumps(content), encoding="utf-8")
            os.replace(new, self.folder / name)


def read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise SystemExit(
            f"{path} cannot be read: {error}. Export with dataset_type=fo.types.FiftyOneDataset."
        ) from None
    return found


def add(exported: Exported, project: Project) -> None:
    """Images that are items already are not added again."""
    keys = [sample["filepath"] for sample in exported.samples]
    told = project.add_items(
        {"key": key, "uri": exported.path_of(sample)}
        for key, sample in zip(keys, exported.samples, strict=True)
    )
    print(f"{told.added} images are new items, {told.known} are known.")
    for line in told.refused:
        print(f"{keys[line.line - 1]}: {line.message}")


def show(exported: Exported, project: Project, count: int) -> None:
    """The newest ranking, in the place of what was shown before."""
    ranked = [item.key for item in project.items(sort="rank", state="available")]
    rank = {key: place for place, key in enumerate(ranked, 1)}
    classes = {
        item.key: item.class_name if item.classes is None else ", ".join(item.classes)
        for item in project.items(state="done")
    }
    first = 0
    for sample in exported.samples:
        key = sample["filepath"]
        sample[RANK], sample[CLASS] = rank.get(key), classes.get(key)
        sample["tags"] = [tag for tag in sample.get("tags") or () if tag != NEXT]
        if rank.get(key, count + 1) <= count:
            sample["tags"].append(NEXT)
            first += 1
    exported.declare()
    exported.save()
    print(f"{len(rank)} items are ranked; {first} samples have the tag {NEXT}.")


def queue(exported: Exported, project: Project, tag: str) -> None:
    wanted = {sample["filepath"] for sample in exported.samples if tag in (sample.get("tags") or ())}
    items = [item.id for item in project.items() if item.key in wanted]
    added = 0
    for start in range(0, len(items), 1000):
        path = f"/projects/{project.id}/queue"
        added += project.client.post(path, {"items": items[start : start + 1000]})["added"]
    print(f"{len(wanted)} samples have the tag {tag}; {added} items are queued.")


def main() -> None:
    parser = argparse.ArgumentParser(description="Shortlist and FiftyOne.")
    parser.add_argument("what", choices=("add", "show", "queue"))
    parser.add_argument("folder", type=Path, help="that FiftyOne exported, as FiftyOneDataset")
    parser.add_argument("--count", type=int, default=50, help="of samples to tag, with `show`")
    parser.add_argument("--tag", help="of samples to be labeled first, with `queue`")
    parser.add_argument("--project", help="of Shortlist, by name or id; default: the only one")
    given = parser.parse_args()
    if given.what == "queue" and given.tag is None:
        parser.error("--tag: say which samples, by a tag that they have in FiftyOne")
    exported = Exported(given.folder)
    with Shortlist() as client:
        project = client.project(given.project)
        if given.what == "add":
            add(exported, project)
        elif given.what == "show":
            show(exported, project, given.count)
        else:
            queue(exported, project, given.tag)


if __name__ == "__main__":
    main()
