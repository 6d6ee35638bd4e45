"""Texts, and pairs by their halves, that come with the call that registers them: kept for good among the artifacts,
before their items are stored.

All texts of a call, or of a part of a stream, lie in one file, named by a hash of what it holds: sent again after a
broken connection it is the same file, and ten thousand small texts cost one write to the disk, not ten thousand. A
file belongs to the project; a copy of the project refers to it (`projects.delete` knows).
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b

from service.content import contents
from service.content.contract import Content
from service.content.pair import EITHER
from service.content.reader import INLINE_COLUMN, INLINE_FOLDER, inline_uri
from service.pool.items import NewItem
from service.store.artifacts import Artifacts
from service.store.tables import Project


def content_for(project: Project) -> Content | None:
    """The content of inline texts; None where the project takes none."""
    content = contents()[project.modality or "text"]
    return None if content.binary else content


def keep(artifacts: Artifacts, project: Project, entries: Sequence[NewItem]) -> list[NewItem]:
    """The same entries; the texts are stored, and each has its place. Raises `ArtifactNotStored`."""
    lines = [json.dumps({"key": entry.key, **_columns(entry)}) for entry in entries if entry.is_inline]
    if not lines:
        return list(entries)
    data = "\n".join(lines).encode()
    file = f"{project.id}/{blake2b(data, digest_size=16).hexdigest()}.jsonl"
    if not artifacts.exists(f"{INLINE_FOLDER}/{file}"):
        with artifacts.writing(f"{INLINE_FOLDER}/{file}") as out:
            out.write(data)
    rows = iter(range(len(lines)))
    return [
        replace(entry, uri=inline_uri(file, next(rows), entry.kinds if entry.halves is not None else None))
        if entry.is_inline
        else entry
        for entry in entries
    ]


def _columns(entry: NewItem) -> dict[str, str | None]:
    return (
        {INLINE_COLUMN: entry.text} if entry.halves is None else dict(zip(EITHER, entry.halves, strict=True))
    )
