"""Whatever happens to a folder, a table or a manifest between imports: every row is counted, and no label is ever under
other bytes than it was given for.
"""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from service.content.reader import ItemBytes, content_hash_of
from service.errors import SourceUnreadable
from service.settings import Settings
from service.store.artifacts import Artifacts
from service.store.session import read_session, write_session
from service.store.tables import Item, Label, Project
from tests.factories import make_label, make_project
from tests.pictures import encoded, picture, write_parquet
from tests.worker.jobs.test_import_source import COUNTS, Importing, on_sqlite
from worker.errors import JobFailed

PICTURES = [encoded(picture(number, 4, 4)) for number in range(6)] + [b"no picture"]
NAMES = [f"{letter}.png" for letter in "abcdef"]

Pool = dict[str, int]  # what is there: by name, the number of its picture
Change = tuple[str, str, str, int]

name, number = st.sampled_from(NAMES), st.integers(0, len(PICTURES) - 1)
change = st.tuples(
    st.sampled_from(["put", "delete", "rename", "swap", "import", "label"]), name, name, number
)


def folder(place: Path, pool: Pool) -> Path:
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    for key, one in pool.items():
        (place / key).write_bytes(PICTURES[one])
    return place


def table(place: Path, pool: Pool) -> Path:
    columns: dict[str, list[Any]] = {"key": list(pool), "image": [PICTURES[one] for one in pool.values()]}
    return write_parquet(place.with_suffix(".parquet"), columns)


def table_without_keys(place: Path, pool: Pool) -> Path:
    return write_parquet(place.with_suffix(".parquet"), {"image": [PICTURES[one] for one in pool.values()]})


def manifest(place: Path, pool: Pool) -> Path:
    folder(place, pool)
    path = place.with_suffix(".csv")
    with path.open("w") as file:
        csv.writer(file).writerows([["path"], *([f"{place.name}/{key}"] for key in pool)])
    return path


def apply(pool: Pool, what: str, first: str, second: str, picture_number: int) -> None:
    if what == "put":
        pool[first] = picture_number
    elif what == "delete":
        pool.pop(first, None)
    elif what == "rename" and first in pool:
        pool[second] = pool.pop(first)
    elif what == "swap" and first in pool and second in pool:
        pool[first], pool[second] = pool[second], pool[first]


class Told:
    """The classes that annotators gave, by the bytes that they saw."""

    def __init__(self, importing: Importing) -> None:
        self.importing = importing
        self.item_bytes = ItemBytes(importing.settings)

    def label(self) -> None:
        """Label all that is open: the class says which bytes were shown."""
        with write_session(self.importing.engine) as session:
            mine = sa.select(Item).where(
                Item.project_id == self.importing.project.id, Item.state == "available"
            )
            for item in session.scalars(mine):
                try:
                    data = self.item_bytes.read(item.uri, item.content_hash)
                except SourceUnreadable:  # changed on the disk, and not imported since: nobody is shown it
                    continue
                make_label(session, item=item, class_name=f"picture {PICTURES.index(data)}")

    def check(self, pool: Pool) -> None:
        with read_session(self.importing.engine) as session:
            query = sa.select(Item, Label.class_name).outerjoin(Label, Label.item_id == Item.id)
            rows = session.execute(query.where(Item.project_id == self.importing.project.id)).all()
        found = []
        for item, class_name in rows:
            live = item.state not in ("changed", "missing")
            if live:
                data = self.item_bytes.read(item.uri, item.content_hash)  # as whoever shows it reads it
                found.append(PICTURES.index(data))
                assert class_name in (None, f"picture {found[-1]}")
                assert (item.state == "done") == (class_name is not None)
            elif class_name is not None:
                assert content_hash_of(PICTURES[int(class_name.split()[1])]) == item.content_hash
        assert sorted(found) == sorted(pool.values())  # each row is an item, and no other is served


@on_sqlite
@pytest.mark.parametrize("write", [folder, table, table_without_keys, manifest])
@settings(
    max_examples=15,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    database=None,
)
@example(  # an item that cannot be decoded stands in another row
    changes=[
        ("delete", "b.png", "", 0),
        ("put", "d.png", "", 6),
        ("put", "b.png", "", 5),
        ("import", "", "", 0),
        ("swap", "d.png", "a.png", 0),
        ("rename", "a.png", "d.png", 0),
    ]
)
@given(changes=st.lists(change, min_size=1, max_size=14))
def test_any_sequence_of_changes(
    write: Callable[[Path, Pool], Path],
    changes: list[Change],
    engine: sa.Engine,
    settings: Settings,
    artifacts: Artifacts,
    tmp_path: Path,
) -> None:
    importing = Importing(engine, settings, artifacts)
    with write_session(engine) as session:
        importing.project = make_project(session, classes=[f"picture {n}" for n in range(len(PICTURES))])
        assert session.get_one(Project, importing.project.id).modality == "image"
    told = Told(importing)
    place = tmp_path / "pool"
    pool: Pool = {"a.png": 0, "b.png": 1, "c.png": 2}
    for what, first, second, picture_number in [*changes, ("import", "", "", 0)]:
        if what == "label":
            if pool:
                write(place, pool)
            told.label()
        elif what == "import" and pool:
            path = write(place, pool)
            result = importing(path, accept_missing=True)
            assert sum(result[name] for name in COUNTS) == len(pool), result
            told.check(pool)
        elif what != "import":
            apply(pool, what, first, second, picture_number)
    with pytest.raises(JobFailed):  # nothing is there: nothing is put aside
        importing(folder(tmp_path / "pool", {}) if write is not manifest else folder(tmp_path / "none", {}))
