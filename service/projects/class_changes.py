"""The classes of a project change: renamed, merged, added, removed. Each change says first what it will do, and is kept
on record with who made it.

A label's row says the class that is meant now, and beside it what the annotator said then, where that was called
otherwise (`Label.said`). So all that reads labels knows one name a class. The old name stays an alias
(`service.store.class_names`). What heads measured stays as it was measured; where a class only got another name, heads
and their metrics bear the new one.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.errors import ClassesBusy, ClassInUse, Invalid, UnknownClass
from service.labeling import agreement
from service.labeling.picks import AVAILABLE, CURRENT
from service.models import plug_ins, training
from service.projects import projects
from service.store import class_sets, outbox, pipeline
from service.store.class_names import ClassNames, aliases_after
from service.store.ids import public_id
from service.store.names import composed
from service.store.project_settings import ProjectSettings
from service.store.tables import (
    ClassChange,
    Head,
    Item,
    Job,
    Key,
    Label,
    LabelCheck,
    Project,
    RankedItem,
    Source,
    Suspect,
    utc_now,
)

Kind = Literal["rename", "merge", "add", "remove"]

_EARLIER = sa.and_(~Label.current, Label.class_name.is_not(None))
_SHOWN = 10  # classes that a sentence lists
_IN_POOL, _TEST, _GOLD = (sa.text(f"items.{which}") for which in ("split = 'pool'", "split = 'test'", "gold"))


@dataclass(frozen=True)
class Wanted:
    """classes: those to rename (one), merge, add or remove; to: the new name of what is renamed or merged"""

    kind: Kind
    classes: tuple[str, ...]
    to: str | None = None


@dataclass(frozen=True)
class Effects:
    """Counts of what has the classes concerned when they change."""

    labels: int = 0  # current ones
    earlier_labels: int = 0  # replaced, withdrawn or stale ones
    items: int = 0  # pool items of these classes
    test_items: int = 0
    gold_items: int = 0  # of the pool items
    split_items: int = (
        0  # open ones with labels of several of the classes: where these agree now, they are done
    )


@dataclass(frozen=True)
class Changed:
    """A change that was made, or would be. says: its effects, in sentences."""

    wanted: Wanted
    before: list[str]
    after: list[str]
    effects: Effects
    says: list[str]
    record: ClassChange | None  # None: a dry run, or nothing to do
    job_id: int | None = None  # the training of a head that follows


@dataclass(frozen=True)
class Use:
    """A class, and what has it."""

    name: str
    aliases: list[str]
    effects: Effects


def change(
    session: Session,
    project: Project,
    wanted: Wanted,
    *,
    by: int | None,
    if_match: str | None = None,
    dry_run: bool = False,
) -> Changed:
    """by: the key of whoever wants it. Raises `UnknownClass`, `Invalid`, `ClassInUse`, `ClassesBusy`, `ProjectChanged`,
    `ProjectArchived`.
    """
    projects.lock_open(session, project)
    projects.check_etag(project, if_match)
    wanted = _as_spelled(project, wanted)
    before, after = project.classes, _classes_after(project, wanted)
    if wanted.kind == "remove":
        _check_removed(session, project, wanted.classes)
    if wanted.kind != "add":
        _check_idle(session, project)
    effects = _effects(session, project, wanted)
    says = _says(project, wanted, effects, after)
    if dry_run or after == before:
        return Changed(wanted, before, after, effects, says, None)
    job_id = None
    if wanted.kind in ("rename", "merge"):
        job_id = _become(session, project, wanted, after)
    else:
        _set(project, after, dict.fromkeys(wanted.classes))
    project.version += 1
    record = _record(session, project, wanted, effects, by)
    return Changed(wanted, before, after, effects, says, record, job_id)


def set_classes(session: Session, project: Project, classes: Sequence[str], by: int | None) -> None:
    """The project, which is locked, has these classes then, in this order: what is new among them is added, what is not
    is removed. Raises `ClassInUse`, `Invalid`, `ClassesBusy`.
    """
    spelled = {composed(known): known for known in project.classes}
    after = [spelled.get(composed(one), one) for one in classes]
    gone = tuple(name for name in project.classes if name not in set(after))
    new = tuple(name for name in after if name not in set(project.classes))
    if gone:
        _check_removed(session, project, gone)
        _check_idle(session, project)
    _set(project, after, dict.fromkeys(gone))
    for kind, names in (("remove", gone), ("add", new)):
        if names:
            wanted = Wanted("remove" if kind == "remove" else "add", names)
            _record(session, project, wanted, _effects(session, project, wanted), by)


def uses(session: Session, project: Project) -> list[Use]:
    """Each class of the project, in their order, with what has it."""
    found = _by_class(session, project)
    aliases: dict[str, list[str]] = {}
    for alias, name in sorted(project.aliases.items()):
        aliases.setdefault(name, []).append(alias)
    return [Use(name, aliases.get(name, []), found.get(name, Effects())) for name in project.classes]


def page(
    session: Session, project: Project, before: int | None, limit: int
) -> list[tuple[ClassChange, str | None]]:
    """The changes that were made, newest first, each with the name of the key that made it."""
    query = (
        sa.select(ClassChange, Key.name)
        .outerjoin(Key, Key.id == ClassChange.key_id)
        .where(ClassChange.project_id == project.id)
        .order_by(ClassChange.id.desc())
        .limit(limit)
    )
    rows = session.execute(query if before is None else query.where(ClassChange.id < before)).all()
    return [(row[0], row[1]) for row in rows]


def _as_spelled(project: Project, wanted: Wanted) -> Wanted:
    """The classes, and that which others are merged into, as the project writes them."""
    spelled = {composed(name): name for name in project.classes}
    names = [spelled.get(composed(name), name) for name in wanted.classes]
    to = wanted.to
    if wanted.kind == "merge" and to is not None:
        to = spelled.get(composed(to), to)
    return replace(wanted, classes=tuple(names), to=to)


def _classes_after(project: Project, wanted: Wanted) -> list[str]:
    """Raises `UnknownClass`, `Invalid`."""
    names = wanted.classes
    if len(set(map(composed, names))) < len(names):
        raise Invalid(field="classes", message="the same class stands here twice.")
    if wanted.kind == "add":
        after = _with_new(project, names)
    else:
        for index, name in enumerate(names):
            _check_known(project, name, f"classes[{index}]")
        others = [name for name in project.classes if name not in set(names)]
        after = others if wanted.kind == "remove" else _with_one_for(project, wanted, others)
    if fault := projects.fault_of(after):
        raise Invalid(field="classes", message=f"{fault}.")
    return after


def _with_new(project: Project, names: Sequence[str]) -> list[str]:
    taken = set(map(composed, project.classes))
    for index, name in enumerate(names):
        if composed(name) in taken:
            raise Invalid(field=f"classes[{index}]", message=f"the project has a class {name!r} already.")
    if len(project.classes) + len(names) > projects.MOST_CLASSES:
        message = f"a project has at most {projects.MOST_CLASSES:,} classes."
        raise Invalid(field="classes", message=message)
    return [*project.classes, *names]


def _with_one_for(project: Project, wanted: Wanted, others: Sequence[str]) -> list[str]:
    """It stands where the class stood that keeps its name, else where the first of them did."""
    to = wanted.to
    if to is None:
        raise Invalid(field="to", message=f"a {wanted.kind} needs the name that the class gets.")
    if wanted.kind == "rename" and len(wanted.classes) > 1:
        raise Invalid(field="classes", message="one class is renamed at a time; several are merged.")
    if wanted.kind == "rename" and composed(to) in set(map(composed, others)):
        message = f"the project has a class {to!r} already. To make one class of both, merge them."
        raise Invalid(field="to", message=message)
    if wanted.kind == "merge" and len({*wanted.classes, to} & set(project.classes)) < 2:
        raise Invalid(field="classes", message="it takes at least two classes to merge.")
    concerned = {*wanted.classes, to}
    place = next(
        name for name in project.classes if name == to or (to not in project.classes and name in concerned)
    )
    return [
        to if name == place else name for name in project.classes if name == place or name not in concerned
    ]


def _check_known(project: Project, name: str, field: str) -> None:
    """An alias is no class here: a change that is sent twice is not made twice."""
    if name in project.classes:
        return
    now = ClassNames(project).now(name)
    if now is not None:
        raise Invalid(field=field, message=f"{name!r} was renamed or merged before: it is {now!r} now.")
    raise UnknownClass(
        field=field, name=name, classes=", ".join(project.classes), project=public_id("p", project.id)
    )


def _check_removed(session: Session, project: Project, names: Sequence[str]) -> None:
    """Raises `ClassInUse`, and `Invalid` where a setting names the class."""
    found = _by_class(session, project, names)
    for name in names:
        use = found.get(name, Effects())
        if use.labels or use.items or use.test_items:
            raise ClassInUse(name=name, use=_counted(use))
    settings = ProjectSettings.model_validate(project.settings)
    for field, parameter, value in plug_ins.named_classes(session, settings):
        if value in names:
            message = f"{field}.params.{parameter} names the class {value!r}: change that setting first."
            raise Invalid(field="classes", message=message)


def _check_idle(session: Session, project: Project) -> None:
    """Jobs that write classes as they read them at their beginning go first. Raises `ClassesBusy`."""
    copies = sa.and_(
        Job.kind == "copy_project",
        Job.state.in_(("queued", "running")),
        sa.or_(Job.project_id == project.id, Job.payload["from"].as_integer() == project.id),
    )
    imports = sa.and_(
        Job.kind == "import_source",
        Job.state == "running",
        Job.id.in_(sa.select(Source.job_id).where(Source.project_id == project.id, Source.split == "test")),
    )
    job = session.scalar(sa.select(Job).where(sa.or_(copies, imports)).limit(1))
    if job is not None:
        raise ClassesBusy(kind=job.kind, job=public_id("j", job.id))


def _concerned(wanted: Wanted) -> tuple[str, ...]:
    """The classes that have another name afterwards, or none, or are new."""
    return tuple(name for name in wanted.classes if name != wanted.to)


def _effects(session: Session, project: Project, wanted: Wanted) -> Effects:
    found = _by_class(session, project, _concerned(wanted)).values()
    counts = {name: sum(getattr(one, name) for one in found) for name in asdict(Effects())}
    if wanted.kind == "merge":
        counts["split_items"] = _split_items(session, project, {*wanted.classes, str(wanted.to)})
    return Effects(**counts)


def _by_class(session: Session, project: Project, names: Sequence[str] | None = None) -> dict[str, Effects]:
    """By class, of these or of all, what has it; those that nothing has are left out."""
    count = sa.func.count
    labels = sa.select(
        Label.class_name, count().filter(sa.text("labels.current")), count().filter(_EARLIER)
    ).where(Label.project_id == project.id, Label.class_name.is_not(None))
    items = sa.select(
        Item.class_name, count().filter(_IN_POOL), count().filter(_TEST), count().filter(_GOLD)
    ).where(Item.project_id == project.id, Item.class_name.is_not(None))
    if names is not None:
        labels = labels.where(_of_any(project, Label.class_name, names))
        items = items.where(_of_any(project, Item.class_name, names))
    found: dict[str, Effects] = {}
    for text, current, earlier in session.execute(labels.group_by(Label.class_name)).all():
        for name in class_sets.classes_in(str(text)):  # of several an item, each counts
            use = found.get(name, Effects())
            found[name] = replace(
                use, labels=use.labels + current, earlier_labels=use.earlier_labels + earlier
            )
    for text, pool, test, gold in session.execute(items.group_by(Item.class_name)).all():
        for name in class_sets.classes_in(str(text)):
            use = found.get(name, Effects())
            found[name] = replace(
                use,
                items=use.items + pool,
                test_items=use.test_items + test,
                gold_items=use.gold_items + gold,
            )
    return found if names is None else {name: use for name, use in found.items() if name in set(names)}


def _of_any(project: Project, column: Any, names: Collection[str]) -> sa.ColumnElement[bool]:
    """The column is one of these classes, or a set with any of them."""
    if project.label_kind == "single":
        return sa.and_(column.in_(names))
    return sa.or_(sa.false(), *(class_sets.holds(column, name) for name in names))


def _split_items(session: Session, project: Project, names: Collection[str]) -> int:
    split = (
        sa.select(Label.item_id)
        .join(Item, Item.id == Label.item_id)
        .where(Label.project_id == project.id, CURRENT, Label.used, AVAILABLE)
        .where(_of_any(project, Label.class_name, names))
        .group_by(Label.item_id)
        .having(sa.func.count(Label.class_name.distinct()) > 1)
    )
    return session.scalar(sa.select(sa.func.count()).select_from(split.subquery())) or 0


def _set(project: Project, after: list[str], became: Mapping[str, str | None]) -> None:
    project.aliases = aliases_after(project, became, after)
    project.classes = after


def _become(session: Session, project: Project, wanted: Wanted, after: list[str]) -> int | None:
    """The classes concerned have the new name, wherever they stand; the job that trains a head on them, if one does."""
    to, olds = str(wanted.to), _concerned(wanted)
    session.flush()
    became = dict.fromkeys(olds, to)
    said = {Label.said: sa.func.coalesce(Label.said, Label.class_name)}
    for table, column, more in (
        (Label, Label.class_name, said),
        (Item, Item.class_name, {}),
        (Suspect, Suspect.class_name, {}),
        (Suspect, Suspect.suggested_class, {}),
    ):
        _rewrite(session, project, column, table.project_id == project.id, became, more)
    _rewrite(
        session, project, RankedItem.predicted_class, RankedItem.ranking_id == project.ranking_id, became
    )
    contradicts_itself = Suspect.suggested_class == Suspect.class_name
    session.execute(sa.delete(Suspect).where(Suspect.project_id == project.id, contradicts_itself))
    settings = ProjectSettings.model_validate(project.settings)
    for field, parameter, value in plug_ins.named_classes(session, settings):
        if value in became:
            choice = getattr(settings, field)
            choice = choice.model_copy(update={"params": {**choice.params, parameter: became[value]}})
            project.settings = {**project.settings, field: choice.model_dump(mode="json")}
    _set(project, after, became)
    if wanted.kind == "rename":
        _rename_in_heads(session, project, olds[0], to)
        return None
    agreement.settle_open(session, project, settings.overlap)
    if session.get(LabelCheck, project.id) is not None:
        pipeline.queue_check_labels(session, project)
    return training.retrain_if_due(session, project)


def _rewrite(
    session: Session,
    project: Project,
    column: sa.orm.InstrumentedAttribute[Any],
    which: sa.ColumnElement[bool],
    became: Mapping[str, str],
    more: Mapping[Any, Any] | None = None,
) -> None:
    """The column says the new names in these rows; of those that it changes, more values are set."""
    concerned = sa.and_(which, _of_any(project, column, became))
    if project.label_kind == "single":
        (to,) = set(became.values())
        session.execute(sa.update(column.class_).where(concerned).values({column: to, **(more or {})}))
        return
    for text in session.scalars(sa.select(column).where(concerned).distinct()).all():
        now = class_sets.with_names(text, became)
        session.execute(
            sa.update(column.class_).where(which, column == text).values({column: now, **(more or {})})
        )


def _rename_in_heads(session: Session, project: Project, old: str, to: str) -> None:
    """A head that knows the class goes on to be served, and is compared with those that come."""
    for head in session.scalars(sa.select(Head).where(Head.project_id == project.id)):
        if old in head.classes:
            head.classes = [to if name == old else name for name in head.classes]
            for figure in ("recall", "average_precision", "confusion_by_class"):
                if found := head.metrics.get(figure):
                    renamed = {to if name == old else name: share for name, share in found.items()}
                    head.metrics = {**head.metrics, figure: renamed}


def _record(
    session: Session, project: Project, wanted: Wanted, effects: Effects, by: int | None
) -> ClassChange:
    record = ClassChange(
        project_id=project.id,
        kind=wanted.kind,
        classes=list(wanted.classes),
        became=wanted.to,
        effects=asdict(effects),
        key_id=by,
        created_at=utc_now(),
    )
    session.add(record)
    session.flush()
    told = {"kind": wanted.kind, "changed": record.classes, "to": wanted.to, "classes": project.classes}
    outbox.tell(session, project.id, "classes.changed", told)
    return record


def _says(project: Project, wanted: Wanted, effects: Effects, after: Sequence[str]) -> list[str]:
    """The effects, in sentences."""
    names = _listed(_concerned(wanted))
    if wanted.kind == "add":
        return [f"{names}: new. Nothing has it yet, and heads know nothing of it before labels do."]
    if wanted.kind == "remove":
        kept = f"; {effects.earlier_labels:,} replaced ones keep the name" if effects.earlier_labels else ""
        return [f"{names}: removed. No current label, gold item or test item has it{kept}."]
    said = [
        f"{names} will be called “{wanted.to}”, in {_counted(effects)}. What annotators said then is kept beside each "
        f"label, and labels that still come under an old name are taken as “{wanted.to}”."
    ]
    if wanted.kind == "rename":
        return [
            *said,
            "Heads, metrics and rounds stay as they are, under the new name. Nothing is trained anew.",
        ]
    if effects.split_items:
        said.append(
            f"{effects.split_items:,} open items have labels of several of these classes: those whose labels agree now "
            "are done."
        )
    if project.head_id is not None:
        said.append(
            "A head is trained anew; until it is done, the one in use adds the probabilities of these classes."
        )
    return [
        *said,
        f"What was measured before stays as it was measured, with {len(project.classes)} classes: the learning curve "
        f"goes on with {len(after)}, and figures before and after are not comparable.",
        "A merge is not undone by another change: labels that come from now on say only the new name.",
    ]


def _listed(names: Sequence[str]) -> str:
    shown = [f"“{name}”" for name in names[:_SHOWN]]
    if len(names) > _SHOWN:
        shown.append(f"{len(names) - _SHOWN:,} more")
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def _counted(use: Effects) -> str:
    counts = [
        (use.labels, "label", "labels"),
        (use.earlier_labels, "replaced label", "replaced labels"),
        (use.items, "item of the pool", "items of the pool"),
        (use.gold_items, "gold item among them", "gold items among them"),
        (use.test_items, "item of the test split", "items of the test split"),
    ]
    told = [f"{count:,} {one if count == 1 else many}" for count, one, many in counts if count]
    return ", ".join(told) or "nothing so far"
