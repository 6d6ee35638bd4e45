"""Trained backbones, exported: for other programs, as safetensors and configuration."""

from collections.abc import Iterator

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.errors import BackboneNotExported, NotFound
from service.settings import Settings
from service.store import pipeline
from service.store.artifacts import Artifacts
from service.store.ids import public_id
from service.store.own_embeddings import is_own
from service.store.tables import Job, PretextModel, Project

_PIECE_BYTES = 2**20


def find(session: Session, project: Project, version: int) -> PretextModel:
    """The finished pretext model of this version."""
    query = sa.select(PretextModel).where(
        PretextModel.project_id == project.id, PretextModel.version == version, PretextModel.state == "ready"
    )
    model = session.scalar(query)
    if model is None or is_own(model):  # uploaded embeddings came without a network
        raise NotFound(what="finished pretext model with a backbone", id=version)
    return model


def export(session: Session, model: PretextModel) -> Job:
    return session.get_one(Job, pipeline.queue_export_backbone(session, model, _artifact(model)))


def read(settings: Settings, model: PretextModel) -> Iterator[bytes]:
    """The exported zip, piece by piece. Raises `BackboneNotExported`."""
    artifacts = Artifacts(settings.artifacts, settings.data_dir / "cache")
    if not artifacts.exists(_artifact(model)):
        raise BackboneNotExported(project=public_id("p", model.project_id), version=model.version)
    return _pieces(artifacts, _artifact(model))


def _pieces(artifacts: Artifacts, name: str) -> Iterator[bytes]:
    with artifacts.open(name) as file:
        while piece := file.read(_PIECE_BYTES):
            yield piece


def _artifact(model: PretextModel) -> str:
    return f"pretext/{model.id}/backbone.zip"
