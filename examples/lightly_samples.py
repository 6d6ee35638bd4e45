"""Images of LightlyStudio as the pool; what Shortlist makes of them, back to be looked at; and what was selected there.

    SHORTLIST_KEY=… python examples/lightly_samples.py add pets
    SHORTLIST_KEY=… python examples/lightly_samples.py show pets --count 50
    SHORTLIST_KEY=… python examples/lightly_samples.py queue pets --tag interesting

`add` makes an item of each image of the dataset, by its path. `show` gives each sample `shortlist_rank` (1 is wanted
most; what is not ranked comes after the last one) and `shortlist_class`, and the first ones the tag `shortlist-next`.
`queue` has samples with a tag, as it is given in LightlyStudio's window, labeled before those of the ranking. The
service must see the files at the same paths, below `SHORTLIST_SOURCE_ROOTS`.
"""

import argparse
from typing import Any

import lightly_studio
from lightly_studio.core.dataset_query.image_sample_field import ImageSampleField

from shortlist_client import Project, Shortlist

RANK, CLASS, NEXT = "shortlist_rank", "shortlist_class", "shortlist-next"


def add(dataset: Any, project: Project) -> None:
    """Images that are items already are not added again."""
    paths = [sample.file_path_abs for sample in dataset]
    told = project.add_items({"key": path, "uri": path} for path in paths)
    print(f"{told.added} images are new items, {told.known} are known.")
    for line in told.refused:
        print(f"{paths[line.line - 1]}: {line.message}")


def show(dataset: Any, project: Project, count: int) -> None:
    """The newest ranking, in the place of what was shown before."""
    ranked = [item.key for item in project.items(sort="rank", state="available")]
    rank = {key: place for place, key in enumerate(ranked, 1)}
    classes = {
        item.key: item.class_name if item.classes is None else ", ".join(item.classes)
        for item in project.items(state="done")
    }
    samples = list(dataset)
    facts = []
    for sample in samples:
        key = sample.file_path_abs
        # There is no way to take a value away again, and none for "no value".
        facts.append((sample.sample_id, {RANK: rank.get(key, len(rank) + 1), CLASS: classes.get(key) or ""}))
    dataset.update_metadata(facts)
    for sample in dataset.match(ImageSampleField.tags.contains(NEXT)).to_list():
        sample.remove_tag(NEXT)
    first = [sample for sample in samples if rank.get(sample.file_path_abs, count + 1) <= count]
    for sample in first:
        sample.add_tag(NEXT)
    print(f"{len(rank)} items are ranked; {len(first)} samples have the tag {NEXT}.")


def queue(dataset: Any, project: Project, tag: str) -> None:
    wanted = {each.file_path_abs for each in dataset.match(ImageSampleField.tags.contains(tag))}
    items = [item.id for item in project.items() if item.key in wanted]
    added = 0
    for start in range(0, len(items), 1000):
        path = f"/projects/{project.id}/queue"
        added += project.client.post(path, {"items": items[start : start + 1000]})["added"]
    print(f"{len(wanted)} samples have the tag {tag}; {added} items are queued.")


def main() -> None:
    parser = argparse.ArgumentParser(description="Shortlist and LightlyStudio.")
    parser.add_argument("what", choices=("add", "show", "queue"))
    parser.add_argument("dataset", help="its name in LightlyStudio")
    parser.add_argument("--database", help="its file; default: lightly_studio.db in this folder")
    parser.add_argument("--count", type=int, default=50, help="of samples to tag, with `show`")
    parser.add_argument("--tag", help="of samples to be labeled first, with `queue`")
    parser.add_argument("--project", help="of Shortlist, by name or id; default: the only one")
    given = parser.parse_args()
    if given.what == "queue" and given.tag is None:
        parser.error("--tag: say which samples, by a tag that they have in LightlyStudio")
    if given.database:
        lightly_studio.db_manager.connect(db_file=given.database)
    dataset = lightly_studio.ImageDataset.load(given.dataset)
    with Shortlist() as client:
        project = client.project(given.project)
        if given.what == "add":
            add(dataset, project)
        elif given.what == "show":
            show(dataset, project, given.count)
        else:
            queue(dataset, project, given.tag)


if __name__ == "__main__":
    main()
