"""Marks of a pretext model that was uploaded as embeddings, see `service/models/own_embeddings.py`."""

from service.store.tables import PretextModel

OWN = "own_embeddings"  # in the place of a pretext task
FOLDER = "own-embeddings"  # of artifacts


def is_own(model: PretextModel) -> bool:
    return bool(model.task["name"] == OWN)
