"""The class, or classes, that somebody sends for an item, as labels and items carry them."""

from collections.abc import Sequence

from service.errors import LabelKindDiffers, UnknownClass
from service.store import class_sets
from service.store.class_names import ClassNames
from service.store.ids import public_id
from service.store.names import composed
from service.store.tables import Project

_WANTS = {
    "single": "an item of this project has one class (its label_kind is single). Send `class`, one name",
    "multi": "an item of this project has any number of classes (its label_kind is multi). Send `classes`, a list; an "
    "empty one says that nothing is here",
}


class ClassTexts:
    """The texts of a project, as it is when this is made."""

    def __init__(self, project: Project) -> None:
        self._project, self._names = project, ClassNames(project)
        self.multi = project.label_kind == "multi"

    def of(
        self, class_name: str | None, classes: Sequence[str] | None, where: str = ""
    ) -> tuple[str | None, str | None]:
        """The text, and what was said where that is another one; (None, None) where neither was sent. class_name: one
        name, or a set's text. where: before the names of the fields. Raises `LabelKindDiffers`, `UnknownClass`.
        """
        if (
            class_name is not None
            and classes is None
            and not self.multi
            and self._names.now(class_name) == class_name
        ):
            return class_name, None  # as nearly all are
        if (given := class_sets.several(class_name)) is not None:
            class_name, classes = None, given
        if class_name is None and classes is None:
            return None, None
        if self.multi != (classes is not None):
            sent = "class" if classes is None else "classes"
            raise LabelKindDiffers(field=f"{where}{sent}", wants=_WANTS[self._project.label_kind])
        if classes is None:
            said, now = str(class_name), self._now(str(class_name), f"{where}class")
        else:
            said = class_sets.joined(map(composed, classes))
            now = class_sets.joined(
                self._now(name, f"{where}classes[{index}]") for index, name in enumerate(classes)
            )
        spelled = (
            class_sets.joined(map(composed, class_sets.classes_in(now))) if self.multi else composed(now)
        )
        return now, said if composed(said) != spelled else None

    def _now(self, name: str, field: str) -> str:
        found = self._names.now(name)
        if found is None:
            raise UnknownClass(
                field=field,
                name=name,
                classes=", ".join(self._project.classes),
                project=public_id("p", self._project.id),
            )
        return found
