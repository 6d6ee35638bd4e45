"""Classes are renamed, merged, added and removed: whatever names a class follows, and history says what was said."""

from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.errors import (
    ClassesBusy,
    ClassInUse,
    Invalid,
    ProjectArchived,
    ProjectChanged,
    ShortlistError,
    UnknownClass,
)
from service.labeling import batches
from service.pool import gold
from service.projects import class_changes, project_changes, project_copy, projects
from service.projects.class_changes import Changed, Effects, Kind, Wanted
from service.store.ids import public_id
from service.store.tables import ClassChange, Delivery, Head, Item, Job, Label, Project, RankedItem, Suspect
from tests import factories
from tests.service.conftest import NOON
from tests.service.labeling.test_labels import counted, entry, rows, store

CLASSES = ["kitten", "tomcat", "dog"]


def make(session: Session, size: int = 4, **settings: Any) -> tuple[Project, list[Item]]:
    project = factories.make_project(session, classes=list(CLASSES), settings=settings)
    return project, [factories.make_item(session, project=project) for _ in range(size)]


def change(session: Session, project: Project, kind: Kind, *classes: str, **given: Any) -> Changed:
    wanted = Wanted(kind, classes, given.pop("to", None))
    changed = class_changes.change(session, project, wanted, by=given.pop("by", None), **given)
    session.flush()
    session.expire_all()
    return changed


def test_a_renamed_class_has_its_new_name_wherever_it_stands(session: Session) -> None:
    project, items = make(session)
    other = factories.make_project(session, classes=list(CLASSES))
    elsewhere = factories.make_label(
        session, item=factories.make_item(session, project=other), class_name="kitten"
    )
    store(session, project, entry(items[0], class_name="dog"))
    store(session, project, entry(items[0], class_name="kitten"))
    store(session, project, entry(items[1], class_name="dog"))
    gold.mark(session, project, [(public_id("i", items[2].id), "kitten")])
    test_item = factories.make_item(session, project=project, split="test", class_name="kitten")
    factories.make_suspect(session, item=items[1], class_name="dog", suggested_class="kitten")
    run = factories.make_score_run(session, project=project)
    metrics = {"recall": {"kitten": 0.5, "tomcat": None, "dog": 0.75}, "accuracy": 0.6}
    head = factories.make_head(
        session, project=project, score_run=run, classes=list(CLASSES), metrics=metrics
    )
    version = project.version

    tried = change(session, project, "rename", "kitten", to="cat", dry_run=True)
    assert (project.classes, project.version, tried.record) == (CLASSES, version, None)
    changed = change(session, project, "rename", "kitten", to="cat")

    assert tried.effects == changed.effects == Effects(labels=1, items=2, gold_items=1, test_items=1)
    assert tried.says == changed.says
    assert "1 label, 2 items of the pool, 1 gold item among them, 1 item of the test split" in tried.says[0]
    assert (project.classes, project.version) == (["cat", "tomcat", "dog"], version + 1)
    assert [(label.class_name, label.said, label.current) for label in rows(session)[1:]] == [
        ("dog", None, False),
        ("cat", "kitten", True),
        ("dog", None, True),
    ]
    assert [item.class_name for item in (*items[:3], test_item)] == ["cat", "dog", "cat", "cat"]
    assert session.scalars(sa.select(Suspect)).one().suggested_class == "cat"
    assert (head.classes, list(head.metrics["recall"].items())) == (
        ["cat", "tomcat", "dog"],
        [("cat", 0.5), ("tomcat", None), ("dog", 0.75)],
    )
    assert elsewhere.class_name == "kitten"
    assert session.scalars(sa.select(Job)).all() == []  # nothing to compute


def test_labels_that_come_by_the_old_name_are_taken_for_the_new_one(session: Session) -> None:
    project, items = make(session)
    store(session, project, entry(items[0], class_name="kitten"))
    change(session, project, "rename", "kitten", to="cat")
    assert store(session, project, entry(items[0], class_name="kitten")).outcomes == ["duplicate"]
    store(session, project, entry(items[1], class_name="kitten"))
    gold.mark(session, project, [(public_id("i", items[2].id), "kitten")])
    assert [(label.class_name, label.said) for label in rows(session)] == [("cat", "kitten")] * 2
    assert [item.class_name for item in items[:3]] == ["cat"] * 3

    change(session, project, "rename", "cat", to="feline")
    store(session, project, entry(items[3], class_name="kitten"))
    assert [(label.class_name, label.said) for label in rows(session)] == [("feline", "kitten")] * 3
    change(session, project, "add", "kitten")  # somebody means something new by it
    store(session, project, entry(items[0], "bob", class_name="kitten"))
    assert (rows(session)[-1].class_name, rows(session)[-1].said) == ("kitten", None)
    assert project.aliases == {"cat": "feline"}


def test_two_classes_may_swap_their_names(session: Session) -> None:
    project, items = make(session)
    store(session, project, entry(items[0], class_name="kitten"), entry(items[1], class_name="dog"))
    for old, new in (("kitten", "?"), ("dog", "kitten"), ("?", "dog")):
        change(session, project, "rename", old, to=new)
    assert project.classes == ["dog", "tomcat", "kitten"]
    assert [label.class_name for label in rows(session)] == ["dog", "kitten"]
    assert [label.said for label in rows(session)] == ["kitten", "dog"]
    store(session, project, entry(items[2], class_name="dog"))
    assert (rows(session)[-1].class_name, rows(session)[-1].said) == ("dog", None)
    assert project.aliases == {"?": "dog"}


def test_merged_classes_are_one_and_a_head_is_trained_on_it(session: Session) -> None:
    project, items = make(session, size=5, overlap=2, retrain_min_labels=1)
    run = factories.make_score_run(session, project=project)
    head = factories.make_head(
        session, project=project, score_run=run, metrics={"recall": dict.fromkeys(CLASSES, 0.5)}
    )
    project.score_run_id, project.head_id = run.id, head.id
    factories.make_label_check(session, project=project)
    votes = {0: ("kitten", "tomcat"), 1: ("kitten", "dog"), 2: ("tomcat",), 3: ("dog", "dog")}
    for number, names in votes.items():
        for annotator, name in zip(("ann", "bob"), names, strict=False):
            store(session, project, entry(items[number], annotator, class_name=name))
    factories.make_suspect(session, item=items[3], class_name="kitten", suggested_class="tomcat")
    assert [item.state for item in items] == ["available"] * 3 + ["done", "available"]
    used = project.labels_used
    session.execute(sa.delete(Job))

    changed = change(session, project, "merge", "kitten", "tomcat", to="cat")

    assert changed.effects == Effects(labels=4, split_items=1)
    assert project.classes == ["cat", "dog"]
    assert [(item.state, item.class_name) for item in items[:4]] == [
        ("done", "cat"),
        ("available", None),
        ("available", None),
        ("done", "dog"),
    ]
    assert session.get_one(Label, items[0].decided_by).annotator == "bob"
    assert project.labels_used == used == counted(session, project)
    assert [label.said for label in rows(session)] == [
        "kitten",
        "tomcat",
        "kitten",
        None,
        "tomcat",
        None,
        None,
    ]
    assert session.scalars(sa.select(Suspect)).all() == []
    assert session.scalars(sa.select(Job.kind).order_by(Job.kind)).all() == ["check_labels", "train_head"]
    assert session.get_one(Head, head.id).classes == CLASSES  # it stays as it was measured
    assert any("not comparable" in sentence for sentence in changed.says)


def test_a_class_is_merged_into_one_that_is_there_and_stays_in_its_place(session: Session) -> None:
    project, items = make(session)
    store(session, project, entry(items[0], class_name="kitten"), entry(items[1], class_name="dog"))
    changed = change(session, project, "merge", "kitten", to="dog")
    assert (project.classes, changed.effects.labels) == (["tomcat", "dog"], 1)
    assert [(label.class_name, label.said) for label in rows(session)] == [("dog", "kitten"), ("dog", None)]
    with pytest.raises(Invalid, match="at least two"):
        change(session, project, "merge", "dog", "tomcat", to="pet")


def test_only_what_nobody_says_now_is_removed(session: Session) -> None:
    project, items = make(session)
    change(session, project, "add", "bird")
    store(session, project, entry(items[0], class_name="kitten"))
    store(session, project, entry(items[1], class_name="tomcat"))
    with pytest.raises(
        ClassInUse, match="'kitten' cannot be removed, as these have it: 1 label, 1 item of the pool"
    ):
        change(session, project, "remove", "kitten")
    store(session, project, entry(items[0], class_name="dog"))
    changed = change(session, project, "remove", "kitten")
    assert project.classes == ["tomcat", "dog", "bird"]
    assert changed.effects == Effects(earlier_labels=1)
    assert rows(session)[0].class_name == "kitten"  # the history says so
    with pytest.raises(UnknownClass):
        store(session, project, entry(items[2], class_name="kitten"))
    factories.make_item(session, project=project, split="test", class_name="bird")
    with pytest.raises(ClassInUse, match="1 item of the test split"):
        change(session, project, "remove", "bird")


def test_labels_of_items_that_are_aside_are_current_ones(session: Session) -> None:
    project, items = make(session)
    factories.make_label(session, item=items[0], class_name="kitten")
    items[0].state = "missing"
    with pytest.raises(ClassInUse):
        change(session, project, "remove", "kitten")
    change(session, project, "rename", "kitten", to="cat")
    assert items[0].class_name == "cat"


@pytest.mark.parametrize(
    ("kind", "classes", "to", "error", "says"),
    [
        ("rename", ["cow"], "cat", UnknownClass, "classes[0]"),
        ("rename", ["kitten"], None, Invalid, "to"),
        ("rename", ["kitten"], "dog", Invalid, "merge them"),
        ("rename", ["kitten", "dog"], "cat", Invalid, "one class is renamed at a time"),
        ("merge", ["kitten", "kitten"], "cat", Invalid, "twice"),
        ("merge", ["kitten"], "cat", Invalid, "at least two classes to merge"),
        ("merge", ["kitten"], "kitten", Invalid, "at least two classes to merge"),
        ("add", ["bird", "dog"], None, Invalid, "classes[1]"),
        ("add", ["bird", "bird"], None, Invalid, "twice"),
        ("remove", ["kitten", "dog"], None, Invalid, "at least two"),
    ],
)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_change_that_makes_no_sense_is_refused_with_a_sentence(
    session: Session, kind: Kind, classes: list[str], to: str | None, error: type[ShortlistError], says: str
) -> None:
    project, _ = make(session)
    with pytest.raises(error) as caught:
        change(session, project, kind, *classes, to=to)
    assert says in f"{caught.value.fields.get('field')} {caught.value}"
    assert (project.classes, project.version) == (CLASSES, 1)
    assert session.scalars(sa.select(ClassChange)).all() == []


def test_a_change_sent_twice_is_made_once(session: Session) -> None:
    project, _ = make(session)
    change(session, project, "rename", "kitten", to="cat")
    with pytest.raises(Invalid, match="'kitten' was renamed or merged before: it is 'cat' now"):
        change(session, project, "rename", "kitten", to="cat")
    assert change(session, project, "rename", "cat", to="cat").record is None
    assert len(session.scalars(sa.select(ClassChange)).all()) == 1


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_names_are_compared_as_they_read(session: Session) -> None:
    apart, composed = "cafe\u0301", "caf\u00e9"
    project = factories.make_project(session, classes=[apart, "tea", "milk"])
    item = factories.make_item(session, project=project)
    with pytest.raises(Invalid, match="already"):
        change(session, project, "add", composed)
    store(session, project, entry(item, class_name=composed))
    assert (rows(session)[0].class_name, rows(session)[0].said) == (apart, None)
    change(session, project, "merge", composed, to="tea")
    assert (project.classes, rows(session)[0].class_name, rows(session)[0].said) == (
        ["tea", "milk"],
        "tea",
        apart,
    )
    store(session, project, entry(item, "bob", class_name=composed))
    assert rows(session)[1].class_name == "tea"


def test_every_change_is_on_record_and_told(session: Session) -> None:
    project, _ = make(session)
    key = factories.make_key(session, name="lead")
    factories.make_webhook(session, project=project, events=["classes.changed"])
    change(session, project, "merge", "kitten", "tomcat", to="cat", by=key.id)
    project_changes.change(
        session, project, changes={}, name=None, classes=["cat", "bird"], state=None, if_match=None, by=key.id
    )
    found = [
        (record.kind, record.classes, record.became, by)
        for record, by in class_changes.page(session, project, None, 10)
    ]
    assert found == [
        ("add", ["bird"], None, "lead"),
        ("remove", ["dog"], None, "lead"),
        ("merge", ["kitten", "tomcat"], "cat", "lead"),
    ]
    assert [delivery.event for delivery in session.scalars(sa.select(Delivery))] == ["classes.changed"] * 3
    (newest,) = class_changes.page(session, project, None, 1)
    assert class_changes.page(session, project, newest[0].id, 1)[0][0].kind == "remove"


def test_a_setting_that_names_the_class_follows(session: Session) -> None:
    schema = {"properties": {"class_name": {"type": "string", "x-class": True}}}
    factories.make_catalogue_entry(session, name="rare", parameters=schema)
    chosen = {"name": "rare", "params": {"class_name": "kitten"}}
    project, _ = make(session, strategy=chosen)
    with pytest.raises(Invalid, match=r"strategy\.params\.class_name names the class 'kitten'"):
        change(session, project, "remove", "kitten")
    change(session, project, "merge", "kitten", "tomcat", to="cat")
    assert project.settings["strategy"]["params"] == {"class_name": "cat"}


def test_nothing_changes_under_a_copy_or_an_import_of_the_test_split(session: Session) -> None:
    project, _ = make(session)
    copied, job = project_copy.copy(session, project, name="copy", labels=True)
    for one in (project, copied):
        with pytest.raises(ClassesBusy, match=public_id("j", job.id)):
            change(session, one, "rename", "kitten", to="cat")
    job.state = "succeeded"
    change(session, project, "rename", "kitten", to="cat")
    assert copied.classes == CLASSES
    source = factories.make_source(session, project=project, split="test")
    importing = factories.make_job(session, kind="import_source", project_id=project.id, state="running")
    source.job_id = importing.id
    session.flush()
    with pytest.raises(ClassesBusy):
        change(session, project, "rename", "cat", to="kitten")
    change(session, project, "add", "bird")
    importing.state = "queued"  # it reads the classes when it begins
    change(session, project, "rename", "cat", to="kitten")


def test_whoever_saw_older_classes_changes_nothing(session: Session) -> None:
    project, _ = make(session)
    seen = projects.etag(project)
    change(session, project, "rename", "kitten", to="cat", if_match=seen)
    with pytest.raises(ProjectChanged):
        change(session, project, "rename", "cat", to="lion", if_match=seen)
    project.state = "archived"
    session.flush()
    with pytest.raises(ProjectArchived):
        change(session, project, "rename", "cat", to="lion")


def test_predictions_of_a_ranking_from_before_bear_the_new_name(session: Session) -> None:
    project, (item, *_) = make(session, control_fraction=0)
    run = factories.make_score_run(session, project=project)
    ranking = factories.make_ranking(session, project=project, score_run=run)
    factories.make_ranked_item(
        session, ranking=ranking, item=item, predicted_class="kitten", predicted_probability=0.9
    )
    project.ranking_id = ranking.id
    session.flush()
    older = factories.make_ranking(
        session, project=project, score_run=run
    )  # one that a batch was served from
    factories.make_ranked_item(session, ranking=older, item=item, predicted_class="kitten")
    change(session, project, "rename", "kitten", to="cat")
    predicted = sa.select(RankedItem.predicted_class).where(RankedItem.ranking_id == ranking.id)
    assert session.scalars(predicted).all() == ["cat"]
    found = batches.next_batch(session, project, annotator="ann", size=1, new=True, now=NOON)
    assert [one.predicted_class for one in found.served] == ["cat"]


def test_each_class_is_listed_with_what_has_it(session: Session) -> None:
    project, items = make(session)
    store(session, project, entry(items[0], class_name="kitten"))
    store(session, project, entry(items[0], class_name="dog"))
    change(session, project, "rename", "kitten", to="cat")
    assert [(use.name, use.aliases, use.effects) for use in class_changes.uses(session, project)] == [
        ("cat", ["kitten"], Effects(earlier_labels=1)),
        ("tomcat", [], Effects()),
        ("dog", [], Effects(labels=1, items=1)),
    ]
