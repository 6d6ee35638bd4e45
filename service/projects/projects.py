"""Projects: made, found, locked, deleted. How they change is in `changes`."""

from collections.abc import Sequence
from typing import Literal

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.content.reader import INLINE_FOLDER, UPLOAD_FOLDER, uploaded_to
from service.errors import (
    Invalid,
    NameTaken,
    NoProject,
    NotFound,
    PretextInUse,
    ProjectArchived,
    ProjectChanged,
    SourceNotAllowed,
    WhichProject,
)
from service.labeling import rounds
from service.models import plug_ins
from service.store import modalities, own_predictions, pipeline
from service.store.class_sets import SEPARATOR, LabelKind
from service.store.ids import public_id, row_number
from service.store.names import composed
from service.store.own_embeddings import FOLDER
from service.store.project_settings import ProjectSettings
from service.store.tables import Job, PretextModel, Project, ScoreRun

State = Literal["active", "paused", "archived"]
MOST_CLASSES = 10_000  # of a project

_FOR_UPDATE = {"key_share": True}
_LOCKED = "locked project"  # in `Session.info`: a session is one transaction, and holds its locks to its end


def create(
    session: Session,
    *,
    name: str,
    classes: Sequence[str],
    settings: ProjectSettings,
    pretext_from: str | None,
    modality: str | None = None,
    label_kind: LabelKind = "single",
) -> Project:
    """With its first round open. Raises `NameTaken`, `UnknownPlugIn`, `UnknownModality`, `TaskForAnotherModality`,
    `Invalid`."""
    if fault := fault_of(classes):
        raise Invalid(field="classes", message=fault)
    plug_ins.check(session, settings, classes, label_kind)
    other = find(session, pretext_from) if pretext_from is not None else None
    project = Project(
        name=name,
        classes=list(classes),
        label_kind=label_kind,
        settings=settings.model_dump(mode="json", exclude_unset=True),
        pretext_from_id=other.id if other else None,
    )
    if modality is None and other is not None:
        modality = other.modality
    if "pair_of" in settings.model_fields_set:
        modality = modality or "pair"
        if modality != "pair":
            message = f'it is of projects whose `modality` is "pair", and this one\'s items are {modality}s.'
            raise Invalid(field="pair_of", message=message)
    if other is not None and other.modality == "pair":
        _take_halves(project, settings, ProjectSettings.model_validate(other.settings))
    if modality is not None:
        modalities.check(modality)
        if other is not None and other.modality not in (None, modality):
            message = f"that project's items are {other.modality}s, and its pretext model is for no others."
            raise Invalid(field="pretext_from", message=message)
        modalities.assign(session, project, modality)
    session.add(project)
    flush_name(session, name)
    rounds.open_first(session, project)
    return project


def _take_halves(project: Project, settings: ProjectSettings, other: ProjectSettings) -> None:
    """The halves of pairs are of the kinds that the other project's pretext model was trained on. Raises `Invalid`."""
    if "pair_of" not in settings.model_fields_set:
        project.settings |= {"pair_of": list(other.pair_of)}
    elif settings.pair_of != other.pair_of:
        message = f"that project's pairs are of {' and '.join(other.pair_of)}, and its pretext model is for no others."
        raise Invalid(field="pretext_from", message=message)


def fault_of(classes: Sequence[str]) -> str | None:
    """Why a project cannot have these classes, as a sentence; None when it can."""
    if len(set(map(composed, classes))) < len(classes):
        return "the same class stands here twice"
    if any(SEPARATOR in name for name in classes):
        return "no class is called with the control character U+001F"
    if len(classes) < 2:
        return "one class only leaves nothing to decide: name at least two, the one you look for and `other`"
    return None


def find(session: Session, public: str, only: int | None = None, *, locked: bool = False) -> Project:
    """By public id. A key bound to project `only` sees no other. locked: as `lock` does it, in the same statement."""
    number = row_number("p", public)
    project = None
    if only in (None, number):
        project = session.get(Project, number, with_for_update=_FOR_UPDATE if locked else None)
    if project is None:
        raise NotFound(what="project", id=public)
    if locked:
        session.info[_LOCKED] = project.id
    return project


def find_only(session: Session, only: int | None, action: str) -> Project:
    """The key's project, else the only one that is not archived. Raises `WhichProject`, `NoProject`."""
    wanted = Project.state != "archived" if only is None else Project.id == only
    found = list(session.scalars(sa.select(Project).where(wanted).order_by(Project.id).limit(2)))
    if not found:
        raise NoProject
    if len(found) > 1:
        raise WhichProject(action=action)
    return found[0]


def lock(session: Session, project: Project) -> None:
    """The project's lock: served, spent and counted figures change under it only, so they need no other.

    It lets rows that refer to the project be inserted meanwhile: an import never makes annotators wait.
    """
    if session.get_bind().dialect.name == "sqlite":
        return  # whoever writes has the whole database to himself already, and has read this row since
    if session.info.get(_LOCKED) == project.id:
        return
    session.flush()  # refreshing would throw away what was not written yet
    try:
        session.refresh(project, with_for_update=_FOR_UPDATE)
    except sa.exc.InvalidRequestError:  # deleted while this call waited for its turn
        raise NotFound(what="project", id=public_id("p", project.id)) from None
    session.info[_LOCKED] = project.id


def lock_open(session: Session, project: Project) -> None:
    """`lock` for a project that may change. Raises `ProjectArchived`."""
    lock(session, project)
    refuse_archived(project)


def refuse_archived(project: Project) -> None:
    if project.state == "archived":
        raise ProjectArchived(project=public_id("p", project.id))


def page(
    session: Session, only: int | None, state: State | None, after: int | None, limit: int
) -> list[Project]:
    """Without `state` all that are not archived."""
    query = sa.select(Project).order_by(Project.id).limit(limit)
    query = query.where(Project.state != "archived" if state is None else Project.state == state)
    if only is not None:
        query = query.where(Project.id == only)
    if after is not None:
        query = query.where(Project.id > after)
    return list(session.scalars(query))


def etag(project: Project) -> str:
    return f'"{project.id}-{project.version}"'


def check_etag(project: Project, if_match: str | None) -> None:
    """if_match: the header, if one was sent. Raises `ProjectChanged` where it is not the ETag in force."""
    if if_match is None or if_match.strip() == "*":
        return
    if etag(project) not in (part.strip() for part in if_match.split(",")):
        raise ProjectChanged


def uploads_of(project: Project) -> set[int]:
    """The projects whose uploads its items may be: its own, and those that it was copied from."""
    return {project.id, *project.texts_from}


def check_upload(project: Project, uri: str) -> None:
    """Raises `SourceNotAllowed` for what was uploaded to a project that is none of its business."""
    owner = uploaded_to(uri.partition("#")[0])
    if owner is not None and owner not in uploads_of(project):
        raise SourceNotAllowed(uri=uri, roots="other projects' uploads are not")


def delete(session: Session, project: Project) -> None:
    """With all that belongs to it: rows by foreign keys, artifacts by a job. Running jobs lose their row, and so
    their lease. Raises `PretextInUse`."""
    lock(session, project)
    borrowed = (
        sa.select(Project)
        .join(ScoreRun, ScoreRun.project_id == Project.id)
        .join(PretextModel, PretextModel.id == ScoreRun.pretext_model_id)
        .where(PretextModel.project_id == project.id, ScoreRun.project_id != project.id)
    )
    borrower = session.scalar(borrowed.limit(1))
    if borrower is not None:
        raise PretextInUse(other=borrower.name, other_id=public_id("p", borrower.id))
    running = sa.select(Job.id).where(Job.project_id == project.id, Job.state == "running").limit(1)
    pipeline.queue_delete_artifacts(
        session, _artifacts(session, project), later=bool(session.scalar(running))
    )
    session.delete(project)
    session.flush()


def _artifacts(session: Session, project: Project) -> list[str]:
    """The folders that hold all that its jobs stored."""
    mine = PretextModel.project_id == project.id
    models = sa.select(PretextModel.id).where(mine)
    own = sa.select(PretextModel.artifact).where(mine, PretextModel.artifact.startswith(f"{FOLDER}/"))
    runs = sa.select(ScoreRun.id).where(ScoreRun.project_id == project.id)
    return [
        f"heads/{project.id}",
        own_predictions.folder_of(project.id),
        *(f"pretext/{number}" for number in session.scalars(models)),
        *(str(artifact) for artifact in session.scalars(own)),
        *(f"scores/{number}" for number in session.scalars(runs)),
        *(
            f"{folder}/{number}"
            for number in _texts_of_no_other(session, project)
            for folder in (INLINE_FOLDER, UPLOAD_FOLDER)
        ),
    ]


def _texts_of_no_other(session: Session, project: Project) -> list[int]:
    """The projects whose inline texts and uploads nobody's items are any more, once this one is gone. A copy's items
    are those of the project that it was made from.
    """
    others = session.execute(sa.select(Project.id, Project.texts_from).where(Project.id != project.id)).all()
    used = {number for other in others for number in (other.id, *other.texts_from)}
    return [number for number in (project.id, *project.texts_from) if number not in used]


def flush_name(session: Session, name: str) -> None:
    try:
        session.flush()
    except sa.exc.IntegrityError as error:
        raise NameTaken(name=name) from error
