"""Labels that folders imply: an item in a folder that is called as a class has it, as an imported label."""

import sqlalchemy as sa

from service.labeling import labels
from service.labeling.labels import NewLabel
from service.store.class_names import ClassNames
from service.store.ids import public_id
from service.store.session import write_session
from service.store.tables import Item, Project, utc_now

ANNOTATOR = "folders"
_CHUNK = 1_000  # items a transaction; annotators wait for one


def store(engine: sa.Engine, project_id: int) -> int:
    """Label the available items that nobody has labeled as folders; how many there were. Again is safe. None where an
    item has several classes.
    """
    stored = after = 0
    while True:
        with write_session(engine) as session:
            project = session.get_one(Project, project_id)
            query = sa.select(Item.id, Item.key).where(
                Item.project_id == project_id,
                Item.id > after,
                Item.state == "available",
                Item.split == "pool",
            )
            found = session.execute(query.order_by(Item.id).limit(_CHUNK)).all()
            if not found:
                return stored
            if project.label_kind == "multi":  # a folder says of one class only that it is there
                return 0
            after, names = found[-1][0], ClassNames(project)
            entries = [
                NewLabel(public_id("i", number), ANNOTATOR, class_name=name)
                for number, key in found
                if (name := class_of(key, names)) is not None
            ]
            kept, _ = labels.store_good(session, project, entries, utc_now())
            stored += sum(outcome == "accepted" for outcome in kept.outcomes)


def class_of(key: str, names: ClassNames) -> str | None:
    """The class that the first folder with a class's name stands for; None where no folder has one."""
    folders = map(names.now, key.split("/")[:-1])
    return next((name for name in folders if name is not None), None)
