from typing import Annotated

from fastapi import APIRouter, Path, Response
from fastapi.responses import StreamingResponse

from service.api.jobs import JobAnswer, accepted
from service.http.dependencies import Admin, PartsDep, Reader, ReadSession, WriteSession
from service.http.idempotent_route import OnceRoute
from service.models import backbones
from service.projects import projects

router = APIRouter(
    prefix="/projects/{project_id}/pretext-models/{number}", tags=["training"], route_class=OnceRoute
)

_ZIP = "application/zip"
Number = Annotated[int, Path(ge=1, le=2**53, description="version of the pretext model")]


@router.post("/export", status_code=202)
def export_backbone(
    project_id: str, number: Number, session: WriteSession, caller: Admin, response: Response
) -> JobAnswer:
    """Export the trained backbone; when the job is done, GET …/backbone has it."""
    project = projects.find(session, project_id, caller.project_id)
    return accepted(backbones.export(session, backbones.find(session, project, number)), response)


@router.get("/backbone", response_class=StreamingResponse, responses={200: {"content": {_ZIP: {}}}})
def download_backbone(
    project_id: str, number: Number, session: ReadSession, caller: Reader, parts: PartsDep
) -> StreamingResponse:
    """The exported backbone: a zip of `model.safetensors` and `config.json`. Unpacked to a folder, a timm backbone
    loads by `timm.create_model("local-dir:<folder>", pretrained=True)`; for `small`, the config names the class."""
    project = projects.find(session, project_id, caller.project_id)
    model = backbones.find(session, project, number)
    name = f"{model.backbone.replace('/', '-')}-{project_id}-{number}.zip"
    return StreamingResponse(
        backbones.read(parts.settings, model),
        media_type=_ZIP,
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )
