"""The foundation beside a pretext model, and the space that its embeddings come to lie in: settled once, before the
model's first score run, for models of projects with `backbone: auto`.

`PretextModel.config["foundation"]` holds {network, source, sha256, artifact} of the weights, which are stored, so that
any worker can score what comes later; null where there are none, and `diagnostics["foundation"]` says what was tried.
`config["space"]` names the space, and `config["frame"]` the artifact of what it was fitted to. The gate may choose
another space later: that is the next version of the pretext model (docs/decisions/0022).
"""

from typing import Any

import numpy as np
import sqlalchemy as sa

from service.store.artifacts import Artifacts
from service.store.tables import PretextModel, ScoreRun
from worker.arrays import Halves
from worker.jobs.context import JobContext
from worker.jobs.specs import is_untrained, spec_of
from worker.scoring.space import Frame, SpaceName

AUTO = "auto"
WEIGHTS = "foundations"  # folder of artifacts, which all projects share
_SAMPLE = 20_000  # items that a frame is fitted to


def settle_foundation(context: JobContext, model: PretextModel) -> PretextModel:
    """The model with its foundation, if any."""
    if "foundation" in model.config or model.config.get("wanted_backbone") != AUTO:
        return model
    with context.read() as session:
        runs = sa.select(ScoreRun.id).where(
            ScoreRun.pretext_model_id == model.id, ScoreRun.state == "complete"
        )
        if session.scalar(runs.limit(1)) is not None:
            return model  # embeddings that are there already stay comparable with those to come
    foundation = spec_of(model).make_modality().foundation
    found, sentences = None, ["There are no pretrained weights for items of this kind."]
    if foundation is not None:
        context.report(0, "looking for pretrained weights")
        search = foundation.find(context.settings)
        sentences = list(search.tried)
        if search.weights is not None:
            sha256, source = search.weights.sha256, search.weights.source
            artifact = f"{WEIGHTS}/{sha256}.safetensors"
            if not context.artifacts.exists(artifact):
                with context.artifacts.writing(artifact) as file:
                    file.write(search.weights.data)
            found = {"network": foundation.name, "source": source, "sha256": sha256, "artifact": artifact}
    with context.publish() as session:
        row = session.get_one(PretextModel, model.id, with_for_update=True)
        if "foundation" not in row.config:
            space = "trained" if found is None else default_space(row)
            row.config = row.config | {"foundation": found, "space": space}
            row.diagnostics = row.diagnostics | {"foundation": {"by": "default", "tried": sentences}}
    return row


def default_space(model: PretextModel) -> SpaceName:
    """Without labels; what an untrained network adds is noise."""
    return "pretrained" if is_untrained(model) else "joined"


def weights_of(model: PretextModel) -> str | None:
    """The artifact of the foundation's weights."""
    foundation: dict[str, Any] | None = model.config.get("foundation")
    return foundation["artifact"] if foundation else None


def load_frame(artifacts: Artifacts, name: str) -> Frame:
    with np.load(artifacts.local_path(name), allow_pickle=False) as arrays:
        return Frame.load(dict(arrays))


def settle_frame(context: JobContext, model: PretextModel, trained: Halves, pretrained: Halves) -> Frame:
    """The model's frame; without one, fitted to these embeddings (n, d) and (n, p), which may be mapped."""
    name: str | None = model.config.get("frame")
    if name is None:
        name = f"pretext/{model.id}/frame-{context.job.id}-{context.job.token}.npz"
        rows = np.sort(np.random.default_rng(model.config["seed"]).permutation(len(trained))[:_SAMPLE])
        with context.artifacts.writing(name) as file:
            np.savez(file, allow_pickle=False, **Frame.fitted(trained[rows], pretrained[rows]).arrays())
        with context.publish() as session:
            row = session.get_one(PretextModel, model.id, with_for_update=True)
            # Another project may score by the same model at the same time: the first frame is that of both.
            row.config = {"frame": name} | row.config
            name = row.config["frame"]
    return load_frame(context.artifacts, name)
