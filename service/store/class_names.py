"""A project's classes by any of their names: in whichever Unicode form, and as they were called before.

A class that is renamed, or merged into another, leaves its name as an alias: labels that were on their way, files that
were exported, folders and notes of annotation tools go on to mean the class that it is now. Both programs ask here, a
job that read the classes before they changed, too.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property

from service.store import class_sets
from service.store.names import composed
from service.store.tables import Project


class ClassNames:
    """As they are when this is made."""

    def __init__(self, project: Project) -> None:
        self._names, self._aliases = list(project.classes), dict(project.aliases)

    @cached_property
    def _classes(self) -> frozenset[str]:
        return frozenset(self._names)

    @cached_property
    def _known(self) -> dict[str, str]:
        return {**self._aliases, **{composed(name): name for name in self._names}}

    def now(self, name: str) -> str | None:
        """The class that goes by this name; None where there is none."""
        return name if name in self._classes else self._known.get(composed(name))

    def or_same(self, name: str) -> str:
        """The class that goes by this name, else the name."""
        return self.now(name) or name

    def text_now(self, text: str) -> str:
        """The class, or the set of several, as it is called now."""
        return class_sets.with_names(text, {name: self.or_same(name) for name in class_sets.classes_in(text)})

    def each_now(self, names: Sequence[str]) -> list[str]:
        """Classes of before as they are called now; as they were, where some of them are one class now."""
        found = [self.or_same(name) for name in names]
        return found if len(set(found)) == len(found) else list(names)


def aliases_after(
    project: Project, became: Mapping[str, str | None], classes: Sequence[str]
) -> dict[str, str]:
    """The project's aliases once it has these classes, of which some became others, or none (None)."""
    taken = set(map(composed, classes))
    aliases: dict[str, str] = {}
    for alias, name in {**project.aliases, **{composed(old): old for old in became}}.items():
        now = became.get(name, name)
        if now is not None and alias not in taken:
            aliases[alias] = now
    return aliases
