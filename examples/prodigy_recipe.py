"""A recipe for Prodigy: it shows what Shortlist ranks first, and its answers are labels at once.

    SHORTLIST_KEY=… prodigy shortlist answers -F examples/prodigy_recipe.py --annotator ann

Rejected and ignored tasks, and those without a choice, are skipped as "unsure"; where an item may have several classes,
accepting without a choice says that none is there.
"""

import base64
from collections.abc import Iterator, Sequence
from typing import Any

import prodigy

from shortlist_client import Item, Shortlist


@prodigy.recipe(  # type: ignore[untyped-decorator]
    "shortlist",
    dataset=("where Prodigy keeps the answers, too", "positional", None, str),
    project=("of Shortlist, by name or id; default: the only one", "option", "p", str),
    annotator=("that the labels are by", "option", "a", str),
)
def shortlist(dataset: str, project: str | None = None, annotator: str = "prodigy") -> dict[str, Any]:
    client = Shortlist()
    found = client.project(project)
    several = getattr(found.info, "label_kind", "single") == "multi"
    annotating = found.annotate(annotator)
    handed: dict[str, Item] = {}

    def stream() -> Iterator[dict[str, Any]]:
        for item in annotating:
            handed[item.id] = item
            yield task_of(item, found.classes)

    def update(answers: Sequence[dict[str, Any]]) -> None:
        for answer in answers:
            item, chosen = handed[answer["shortlist_item"]], answer.get("accept", [])
            if answer["answer"] != "accept" or not (chosen or several):
                item.skip("unsure")
            else:
                item.label(chosen if several else chosen[0])

    return {
        "dataset": dataset,
        "view_id": "choice",
        "stream": stream(),
        "update": update,
        "on_exit": lambda controller: client.close(),  # what was not answered goes back
        "config": {"choice_style": "multiple" if several else "single", "batch_size": 5},
    }


def task_of(item: Item, classes: Sequence[str]) -> dict[str, Any]:
    task: dict[str, Any] = {
        "options": [{"id": name, "text": name} for name in classes],
        "meta": {"key": item.key},
        "shortlist_item": item.id,
    }
    if item.text is not None:
        return task | {"text": item.text}
    kind = item.info.content.media_type or "image/jpeg"
    return task | {"image": f"data:{kind};base64,{base64.b64encode(item.read()).decode()}"}
