"""The labeling configuration of a Label Studio project: what its tasks show, and which control says the class."""

import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from service.integrations.label_studio.errors import LabelingConfigUnusable
from service.store.names import composed

# The tags that say a class, and the name under which a result holds it. Those that say it of the whole item go first.
_CONTROLS = {
    "Choices": "choices",
    "Taxonomy": "taxonomy",
    "RectangleLabels": "rectanglelabels",
    "PolygonLabels": "polygonlabels",
    "BrushLabels": "brushlabels",
    "KeyPointLabels": "keypointlabels",
    "Labels": "labels",
}
_OF_WHOLE_ITEM = ("Choices", "Taxonomy")
# The tags that show an item, and the modality that it has here.
_OBJECTS = {"Image": "image", "Text": "text", "HyperText": "text", "Audio": "audio"}
_LONGEST = 2**20  # characters


class NoClass(Exception):
    """An annotation does not say one class; the sentence says why."""


@dataclass(frozen=True)
class LabelingConfig:
    """kind        the modality of its items
    data_key    of a task's data: what it shows
    from_name   of the control that says the class; `control` is its tag
    classes     that it offers, as results name them; empty where each task brings its own
    several     it lets people choose several classes of the whole item
    text_at_url a task names the place of its text, which else stands in it
    """

    kind: str
    data_key: str
    control: str
    from_name: str
    to_name: str
    classes: tuple[str, ...]
    several: bool = False
    text_at_url: bool = False

    @classmethod
    def stored(cls, row: dict[str, Any]) -> Self:
        return cls(**row | {"classes": tuple(row["classes"])})

    def as_row(self) -> dict[str, Any]:
        return asdict(self) | {"classes": list(self.classes)}

    def class_in(self, result: Any) -> str:
        """The one class that a result names. Raises `NoClass`."""
        found = self.classes_in(result)
        if not found:
            raise NoClass(f"it names no class with {self.control} {self.from_name!r}")
        if len(found) > 1:
            names = ", ".join(map(repr, found[:5])) + (", …" if len(found) > 5 else "")
            raise NoClass(f"it names {len(found)} classes ({names}), and an item of this project has one")
        return found[0]

    def classes_in(self, result: Any) -> list[str]:
        """The classes that a result names, each once; none where it says that nothing is there."""
        return list(dict.fromkeys(self._classes_in(result)))

    def result_of(self, classes: Sequence[str]) -> list[dict[str, Any]]:
        """A result that names these classes; none where they are said of parts of an item, which nobody knows, or
        where they are several and people may choose one.
        """
        too_many = self.control == "Choices" and not self.several and len(classes) > 1
        if self.control not in _OF_WHOLE_ITEM or not classes or too_many:
            return []
        named = [name.split("/") for name in classes] if self.control == "Taxonomy" else list(classes)
        return [
            {
                "from_name": self.from_name,
                "to_name": self.to_name,
                "type": _CONTROLS[self.control],
                "value": {_CONTROLS[self.control]: named},
            }
        ]

    def _classes_in(self, result: Any) -> Iterator[str]:
        for region in result if isinstance(result, list) else ():
            if not isinstance(region, dict) or region.get("from_name") != self.from_name:
                continue
            value = region.get("value")
            named = value.get(_CONTROLS[self.control]) if isinstance(value, dict) else None
            for one in named if isinstance(named, list) else ():
                yield composed("/".join(map(str, one)) if isinstance(one, list) else str(one))


def parse(label_config: str, field: str = "tool_project") -> LabelingConfig:
    """Raises `LabelingConfigUnusable`."""
    root = _root(label_config, field)
    shown = {name: tag for tag in root.iter() if tag.tag in _OBJECTS and (name := tag.get("name"))}
    controls = [tag for tag in root.iter() if tag.tag in _CONTROLS and tag.get("name")]
    if not controls:
        known = ", ".join(_CONTROLS)
        raise LabelingConfigUnusable(
            field=field, reason=f"it has none of the tags that say a class, which are {known}"
        )
    fitting = [tag for tag in controls if _target(tag, shown) is not None]
    if not fitting:
        raise LabelingConfigUnusable(
            field=field,
            reason=f"none of its tags that say a class is for one that shows an item: {', '.join(_OBJECTS)}",
        )
    control = min(fitting, key=lambda tag: tag.tag not in _OF_WHOLE_ITEM)
    to_name = _target(control, shown) or ""
    value = shown[to_name].get("value", "")
    if not value.startswith("$") or len(value) < 2:
        raise LabelingConfigUnusable(
            field=field,
            reason=f"its {shown[to_name].tag} {to_name!r} shows {value!r} and not a variable of the task as $image",
        )
    kind = _OBJECTS[shown[to_name].tag]
    return LabelingConfig(
        kind=kind,
        data_key=value[1:],
        control=control.tag,
        from_name=str(control.get("name")),
        to_name=to_name,
        classes=tuple(dict.fromkeys(_classes(control))),
        several=control.tag == "Choices" and control.get("choice") == "multiple",
        text_at_url=kind == "text" and shown[to_name].get("valueType") == "url",
    )


def as_project_writes(name: str, classes: Sequence[str]) -> str:
    """The class of the project that reads the same; in another case where only one does. Else the name itself."""
    if name in classes:
        return name
    same = [known for known in classes if composed(known).casefold() == composed(name).casefold()]
    return same[0] if len(same) == 1 else name


def _root(label_config: str, field: str) -> ET.Element:
    # Entities are the one part of XML that can be harmful, and no configuration needs them.
    if "<!doctype" in label_config.lower() or len(label_config) > _LONGEST:
        raise LabelingConfigUnusable(
            field=field, reason="it declares a document type, or is longer than a million characters"
        )
    try:
        return ET.fromstring(label_config)
    except ET.ParseError as error:
        raise LabelingConfigUnusable(field=field, reason=f"it is no XML ({error})") from None


def _target(control: ET.Element, shown: dict[str, ET.Element]) -> str | None:
    """The name of the first object that a control is for, of those that can be items."""
    names = (name.strip() for name in control.get("toName", "").split(","))
    return next((name for name in names if name in shown), None)


def _classes(control: ET.Element) -> Iterator[str]:
    if control.tag == "Taxonomy":
        yield from (composed("/".join(path)) for path in _paths(control))
        return
    for tag in control.iter():
        if tag.tag in ("Choice", "Label") and (name := tag.get("alias") or tag.get("value")):
            yield composed(name)


def _paths(tag: ET.Element, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for choice in tag.findall("Choice"):
        path = (*above, choice.get("alias") or choice.get("value") or "")
        if choice.find("Choice") is None:
            yield path
        yield from _paths(choice, path)
