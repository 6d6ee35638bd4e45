from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Self

from fastapi import APIRouter, Header, Query, Response
from pydantic import Field, field_validator
from pydantic.config import JsonDict

from service.api.jobs import JobAnswer, accepted
from service.content import contents
from service.http.dependencies import Admin, Caller, ReadSession, WriteSession
from service.http.etag import ETagRoute
from service.http.schemas import Body, Cursor, Limit, Name, Page, Text, decode_cursor, with_example
from service.projects import project_changes, project_copy, projects
from service.projects.projects import State
from service.store.class_sets import LabelKind
from service.store.ids import public_id
from service.store.project_settings import ProjectSettings
from service.store.tables import Project

router = APIRouter(prefix="/projects", tags=["projects"], route_class=ETagRoute)

_EXAMPLE = {"name": "shirts", "classes": ["coat", "shirt"], "strategy": "margin", "round_size": 50}


_AT_LEAST_TWO: JsonDict = {
    "minItems": 2,
    "uniqueItems": True,
}  # said in a sentence of its own, not by pydantic


_MODALITY = f"kind of its items: {', '.join(contents())}; without one, its first source tells"


class _Classes(Body):
    @field_validator("classes", check_fields=False)
    @classmethod
    def _distinct(cls, classes: Sequence[str] | None) -> Sequence[str] | None:
        if classes is not None and (fault := projects.fault_of(classes)):
            raise ValueError(fault)
        return classes


class NewProject(ProjectSettings, _Classes):
    """Name and classes; every setting is optional."""

    model_config = with_example(_EXAMPLE)

    name: Name
    classes: list[Name] = Field(
        max_length=projects.MOST_CLASSES,
        description="what an item can be; at least two",
        json_schema_extra=_AT_LEAST_TWO,
    )
    modality: Name | None = Field(None, description=_MODALITY)
    label_kind: LabelKind = Field(
        "single",
        description="`single`: an item has one class; `multi`: any set of them, also none. Fixed once it is made",
    )
    pretext_from: Text | None = Field(
        None, description="another project whose pretext model, and for equal items its score run, is used"
    )


class ProjectChange(ProjectSettings, _Classes):
    """Changes to a project; omitted fields stay as they are. Classes that have labels cannot be taken away;
    to rename or merge some, see `POST …/classes/changes`."""

    model_config = with_example({"round_size": 100, "budget": 2000})

    name: Name | None = None
    classes: list[Name] | None = Field(
        None, max_length=projects.MOST_CLASSES, json_schema_extra=_AT_LEAST_TWO
    )
    modality: Name | None = Field(None, description="as long as there are no items")
    state: State | None = Field(
        None,
        description="`paused`: next-batch serves nothing, labels are still taken; `archived`: nothing changes any "
        "more, its jobs are cancelled; `active`: all goes on",
    )


class CopyRequest(Body):
    model_config = with_example({"name": "shirts, second look", "labels": True})

    name: Name
    labels: bool = Field(True, description="with its labels; without them all items are open again")


class ProjectAnswer(ProjectSettings):
    """A project with all its settings. How it gets on is in `/metrics`."""

    model_config = with_example({"id": "p_1"} | _EXAMPLE)

    id: str
    name: str
    classes: list[str]
    state: State
    modality: str | None = Field(description="kind of its items; null until its first source tells")
    label_kind: LabelKind = Field("single", description="`multi`: an item has any number of classes")
    pretext_from: str | None
    created_at: datetime
    version: int

    @classmethod
    def of(cls, project: Project) -> Self:
        return cls(
            **ProjectSettings.model_validate(project.settings).model_dump(),
            id=public_id("p", project.id),
            name=project.name,
            classes=project.classes,
            state=project.state,
            modality=project.modality,
            label_kind=project.label_kind,
            pretext_from=public_id("p", project.pretext_from_id) if project.pretext_from_id else None,
            created_at=project.created_at,
            version=project.version,
        )


@router.post("", status_code=201)
def create_project(
    body: NewProject, session: WriteSession, caller: Admin, response: Response
) -> ProjectAnswer:
    """Create a project: name, classes, and any settings. Then import a source."""
    caller.require_all_projects()
    chosen = body.model_dump(include=body.model_fields_set & ProjectSettings.model_fields.keys())
    project = projects.create(
        session,
        name=body.name,
        classes=body.classes,
        settings=ProjectSettings.model_validate(chosen),
        pretext_from=body.pretext_from,
        modality=body.modality,
        label_kind=body.label_kind,
    )
    answer = ProjectAnswer.of(project)
    response.headers["Location"] = f"/projects/{answer.id}"
    response.headers["ETag"] = projects.etag(project)
    return answer


@router.get("")
def list_projects(
    session: ReadSession,
    caller: Caller,
    state: Annotated[State | None, Query(description="without one: all but the archived")] = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Page[ProjectAnswer]:
    """The projects this key may see, oldest first."""
    (position,) = decode_cursor(cursor, int) or (None,)
    found = projects.page(session, caller.project_id, state, position, limit)
    return Page.of(found, limit, ProjectAnswer.of, lambda last: (last.id,))


@router.get("/{project_id}")
def get_project(project_id: str, session: ReadSession, caller: Caller, response: Response) -> ProjectAnswer:
    """A project; its ETag goes into the `If-Match` of a change."""
    project = projects.find(session, project_id, caller.project_id)
    response.headers["ETag"] = projects.etag(project)
    return ProjectAnswer.of(project)


@router.patch("/{project_id}")
def change_project(
    project_id: str,
    body: ProjectChange,
    session: WriteSession,
    caller: Admin,
    response: Response,
    if_match: Annotated[str | None, Header(description="the ETag you read; stale is 412")] = None,
) -> ProjectAnswer:
    """Change name, classes or settings. Running jobs finish with the old settings."""
    project = projects.find(session, project_id, caller.project_id)
    settings = body.model_fields_set & ProjectSettings.model_fields.keys()
    project_changes.change(
        session,
        project,
        changes=body.model_dump(include=settings),
        name=body.name,
        classes=body.classes,
        state=body.state,
        if_match=if_match,
        modality=body.modality,
        by=caller.key_id,
    )
    response.headers["ETag"] = projects.etag(project)
    return ProjectAnswer.of(project)


@router.delete("/{project_id}", status_code=204)
def delete_project(project_id: str, session: WriteSession, caller: Admin) -> None:
    """Delete a project with all that is stored of it: items, labels, rounds, models, scores. Files stay where they
    are."""
    projects.delete(session, projects.find(session, project_id, caller.project_id))


@router.post("/{project_id}/copy", status_code=202)
def copy_project(
    project_id: str, body: CopyRequest, session: WriteSession, caller: Admin, response: Response
) -> JobAnswer:
    """Copy a project: classes, settings, items, labels. The copy, the job's `project`, is paused until it is
    complete; it is served with the pretext model of the original, and its scores where images are equal."""
    caller.require_all_projects()
    source = projects.find(session, project_id, caller.project_id)
    _, job = project_copy.copy(session, source, name=body.name, labels=body.labels)
    return accepted(job, response)
