"""The place of a project's own predictions, see `service/models/own_predictions.py`."""


def folder_of(project_id: int) -> str:
    return f"own-predictions/{project_id}"
