"""A dataset or saved view of FiftyOne as the pool; and what Shortlist makes of it, back to be looked at there.

    SHORTLIST_KEY=… python examples/fiftyone_view.py add my-dataset --labels ground_truth
    SHORTLIST_KEY=… python examples/fiftyone_view.py show my-dataset

`add` makes an item of each sample, by its id and file, and labels of a field with classifications. `show` gives each
sample its `shortlist_rank` (1 is wanted most) and `shortlist_class`, and tags the first ones `shortlist-next`:
`view.sort_by("shortlist_rank")`. The service must see the files at the same paths, below `SHORTLIST_SOURCE_ROOTS`.
"""

import argparse
from typing import Any

import fiftyone

from shortlist_client import Project, Shortlist

RANK, CLASS, TAG = "shortlist_rank", "shortlist_class", "shortlist-next"


def add(samples: Any, project: Project, field: str | None) -> None:
    """samples: a dataset or a view. What is there already is not added again."""
    ids, paths = samples.values(["id", "filepath"])
    told = project.add_items({"key": key, "uri": path} for key, path in zip(ids, paths, strict=True))
    print(f"{told.added} samples are new items, {told.known} are known.")
    for line in told.refused:
        print(f"{ids[line.line - 1]}: {line.message}")
    if field is not None:
        known = zip(ids, samples.values(f"{field}.label"), strict=True)
        labels = [{"key": key, "class": name} for key, name in known if name is not None]
        print(f"Labels: {project.import_labels(labels, annotator='fiftyone').outcomes}")


def show(dataset: Any, samples: Any, project: Project, count: int) -> None:
    """The newest ranking; samples that it has not, as those that are labeled, have no rank."""
    ranked = [item.key for item in project.items(sort="rank", state="available")]
    classes = {item.key: item.class_name for item in project.items(state="done")}
    ids = samples.values("id")
    for name, kind in ((RANK, fiftyone.IntField), (CLASS, fiftyone.StringField)):
        dataset.add_sample_field(name, kind)
    rank = {key: place for place, key in enumerate(ranked, 1)}
    samples.set_values(RANK, [rank.get(key) for key in ids])
    samples.set_values(CLASS, [classes.get(key) for key in ids])
    samples.untag_samples(TAG)
    first = samples.select([key for key in ids if rank.get(key, count + 1) <= count])
    first.tag_samples(TAG)
    print(f"{len(rank)} items are ranked; {len(first)} samples are tagged {TAG!r}.")


def main() -> None:
    parser = argparse.ArgumentParser(description="Shortlist and FiftyOne.")
    parser.add_argument("what", choices=("add", "show"))
    parser.add_argument("dataset")
    parser.add_argument("--view", help="a saved view of it; default: all")
    parser.add_argument("--labels", help="a field with classifications to be imported, with `add`")
    parser.add_argument("--count", type=int, default=50, help="of samples to tag, with `show`")
    parser.add_argument("--project", help="of Shortlist, by name or id; default: the only one")
    given = parser.parse_args()
    dataset = fiftyone.load_dataset(given.dataset)
    samples = dataset.load_saved_view(given.view) if given.view else dataset
    with Shortlist() as client:
        project = client.project(given.project)
        if given.what == "add":
            add(samples, project, given.labels)
        else:
            show(dataset, samples, project, given.count)


if __name__ == "__main__":
    main()
