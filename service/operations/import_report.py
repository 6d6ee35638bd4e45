"""The report of an import that has ended: every count, the commonest reasons, and what to do about them."""

from collections.abc import Mapping
from typing import Any

_NAMES = {
    "added": "new items",
    "known": "known",
    "quarantined": "quarantined",
    "changed": "changed",
    "moved": "moved",
    "refused": "refused",
    "ignored": "ignored",
}
_REFUSALS_SHOWN = 3


def sentences(result: Mapping[str, Any], project: str) -> list[str]:
    """result: of the job; project: its public id"""
    at = f"/projects/{project}"
    counts = {name: int(result.get(name) or 0) for name in (*_NAMES, "missing")}
    told = [f"Imported: {', '.join(f'{counts[name]:,} {word}' for name, word in _NAMES.items())}."]
    if counts["changed"]:
        told.append(
            f"{counts['changed']:,} have other bytes than before: they are new items, and what was there is put aside "
            f"with its labels (GET {at}/items?state=changed). Labels that still hold: POST {at}/items/keep-labels."
        )
    if counts["missing"]:
        told.append(
            f"{counts['missing']:,} that were there are missing. Nobody is asked for them; they come back when an "
            f"import finds them again (GET {at}/items?state=missing)."
        )
    reasons = list(result.get("quarantine_reasons") or [])
    told += [f"Quarantined, {each['items']:,}: {each['reason']}." for each in reasons]
    if reasons:
        told.append(
            f"Mend these files and import again; GET {at}/items?state=quarantined says which they are."
        )
    refusals = list(result.get("refusals") or [])
    told += [f"Refused: {sentence}" for sentence in refusals[:_REFUSALS_SHOWN]]
    if counts["refused"] > _REFUSALS_SHOWN:
        told.append(f"… and {counts['refused'] - _REFUSALS_SHOWN:,} more; see the job's result.")
    if counts["ignored"]:
        told.append(
            f"{counts['ignored']:,} other files were left out, as they are no such items. Import tables and manifests "
            "by their own path."
        )
    return told
