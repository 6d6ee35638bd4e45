"""Labels that are known already, streamed: one object a line, by item or by key."""

from collections import Counter
from dataclasses import dataclass, field

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import Field, ValidationError
from sqlalchemy.orm import Session

from service.access.keys import Principal
from service.api.labels import LabelIn, entry_of
from service.errors import NotJson, ShortlistError
from service.http.dependencies import Annotator, Parts, PartsDep
from service.http.middleware import NDJSON
from service.http.ndjson import chunks
from service.http.schemas import Answer, with_example
from service.labeling import labels
from service.labeling.labels import NewLabel, Stored
from service.projects import projects
from service.store.ids import public_id
from service.store.session import read_session
from service.store.tables import Project, utc_now

router = APIRouter(prefix="/projects/{project_id}/labels", tags=["labeling"])

_CHUNK_LABELS = 500  # in one transaction; annotators wait for it
_REFUSED_TOLD = 1_000
_BODY = {
    "required": True,
    "content": {
        NDJSON: {
            "schema": {},
            "example": '{"key": "shirts/0012.png", "class": "coat", "annotator": "import 2024"}\n',
        }
    },
}


class RefusedLabel(Answer):
    line: int = Field(description="counts from 1")
    code: str = Field(description="`malformed`, or the code that POST /labels would answer")


class ImportAnswer(Answer):
    """`outcomes` counts labels by outcome. `refused` tells the first 1,000."""

    model_config = with_example(
        {
            "outcomes": {"accepted": 1200, "duplicate": 3}, "refused": [{"line": 4, "code": "unknown_key"}],
            "refused_count": 1, "labels_used": 1460,
        }
    )  # fmt: skip

    outcomes: dict[str, int]
    refused: list[RefusedLabel]
    refused_count: int
    labels_used: int


@dataclass
class _Import:
    """A call's counts; each chunk is a transaction, so a stream that breaks off can simply be sent again."""

    parts: Parts
    project: Project
    caller: Principal
    line: int = 0
    labels_used: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    refused: list[RefusedLabel] = field(default_factory=list)
    refused_count: int = 0

    async def take(self, lines: list[bytes]) -> None:
        numbered = await run_in_threadpool(self._read, lines)
        public = public_id("p", self.project.id)

        def store(session: Session) -> tuple[Stored, list[tuple[int, str]]]:
            project = projects.find(session, public)  # it may be gone by now
            return labels.store_good(session, project, [entry for _, entry in numbered], utc_now())

        async with self.parts.turns.of(public):
            stored, refused = await self.parts.write(store)
        self.labels_used = stored.labels_used
        self.outcomes.update(stored.outcomes)
        for index, code in refused:
            self._refuse(numbered[index][0], code)

    def _read(self, lines: list[bytes]) -> list[tuple[int, NewLabel]]:
        """The labels that may be stored, by line; the other lines are noted."""
        numbered: list[tuple[int, NewLabel]] = []
        for number, line in enumerate(lines, self.line + 1):
            if line.strip():
                entry = self._entry(line)
                if isinstance(entry, NewLabel):
                    numbered.append((number, entry))
                else:
                    self._refuse(number, entry)
        self.line += len(lines)
        return numbered

    def _entry(self, line: bytes) -> NewLabel | str:
        """Or why it is none."""
        try:
            return entry_of(LabelIn.model_validate_json(line), "annotator", self.caller)
        except ValidationError:
            return "malformed"
        except ShortlistError as error:
            return error.code

    def _refuse(self, line: int, code: str) -> None:
        self.refused_count += 1
        if len(self.refused) < _REFUSED_TOLD:
            self.refused.append(RefusedLabel(line=line, code=code))

    def answer(self) -> ImportAnswer:
        return ImportAnswer(
            outcomes=dict(self.outcomes), refused=self.refused, refused_count=self.refused_count,
            labels_used=self.labels_used,
        )  # fmt: skip


@router.post("/import", openapi_extra={"requestBody": _BODY})
async def import_labels(
    project_id: str, request: Request, caller: Annotator, parts: PartsDep
) -> ImportAnswer:
    """Labels known already, as NDJSON, any number: each as in POST /labels, with `key` instead of `item` where that
    is what you have; `annotator` says where they come from.

    A line that is wrong is refused and stops nothing. Sending the same again is safe.
    """

    def find() -> Project:
        with read_session(parts.engine) as session:
            return projects.find(session, project_id, caller.project_id)

    project = await run_in_threadpool(find)
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != NDJSON:
        raise NotJson(expected=NDJSON)
    found = _Import(parts, project, caller, labels_used=project.labels_used)
    async for lines in chunks(request, _CHUNK_LABELS):
        await found.take(lines)
    return found.answer()
