"""The classes that a head predicts, as a result of the tool, for people to confirm."""

from typing import Any

from service.integrations.label_studio.labeling_config import LabelingConfig, as_project_writes
from service.store.class_names import ClassNames
from service.store.class_sets import classes_in
from service.store.tables import Project


class PreAnnotations:
    """Classes go out by the names that the tool has for them, which may be names that they had here before."""

    def __init__(self, project: Project, config: LabelingConfig) -> None:
        self._config, self._names = config, ClassNames(project)
        self._in_tool: dict[str, str] = {}
        for name in config.classes:
            known = self._names.now(as_project_writes(name, project.classes))
            if known is not None:
                self._in_tool.setdefault(known, name)

    def result_of(self, predicted: str) -> list[dict[str, Any]]:
        """predicted: as a ranking keeps it, one class or a set. Empty where the tool cannot show it, as it lacks a
        class, or its control is for parts of items.
        """
        now = self._names.each_now(classes_in(predicted))  # the ranking may be older than its classes' names
        if self._in_tool and not set(now) <= self._in_tool.keys():
            return []
        return self._config.result_of([self._in_tool.get(name, name) for name in now])
