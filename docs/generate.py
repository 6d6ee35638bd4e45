"""Write docs/api.md, docs/catalogue.md and docs/settings.md from the docstrings and descriptions in the code.

.venv/bin/python docs/generate.py           writes them
.venv/bin/python docs/generate.py --check   ends with 1 when they are not what it would write
"""

import sys
import tempfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from service.main import create_app
from service.settings import Settings
from service.store.catalogue import Announcement
from service.store.project_settings import PretextTraining, ProjectSettings
from worker.supervision.announcements import announcements

HERE = Path(__file__).parent
HEADINGS = {
    "strategy": "Strategies",
    "pretext_task": "Pretext tasks",
    "head": "Heads",
    "backbone": "Backbones",
}


def catalogue() -> str:
    lines = [
        "# Catalogue",
        "",
        "What a worker can do. Written by `docs/generate.py` from the docstrings; `GET /catalogue` answers the same.",
    ]
    for kind, entries in groupby(announcements(), lambda entry: entry.kind):
        lines += ["", f"## {HEADINGS[kind]}"]
        for entry in entries:
            lines += ["", f"### `{entry.name}`", "", entry.help, *_parameters(entry)]
    return "\n".join(lines) + "\n"


def _parameters(entry: Announcement) -> list[str]:
    rows = [
        f"| `{name}` | {_cell(schema.get('default'))} | {_cell(schema.get('description', ''))} |"
        for name, schema in entry.parameters.get("properties", {}).items()
    ]
    return ["", "| parameter | default | |", "|---|---|---|", *rows] if rows else []


def settings() -> str:
    return "\n".join(
        [
            "# Settings",
            "",
            "Written by `docs/generate.py` from the code.",
            "",
            "## Of a project",
            "",
            "Given to `POST /projects` and `PATCH /projects/{p}`.",
            "",
            *_table(ProjectSettings, str),
            "",
            "## Of an installation",
            "",
            "Environment variables, read once at start; `shortlist settings` prints those in force.",
            "",
            *_table(Settings, lambda name: f"SHORTLIST_{name.upper()}"),
            "",
        ]
    )


def _table(settings: type[BaseModel], shown: Any) -> Iterator[str]:
    yield from ("| name | default | |", "|---|---|---|")
    for name, field in settings.model_fields.items():
        if isinstance(field.default, PretextTraining):
            yield from list(_table(PretextTraining, lambda inner, outer=name: f"{outer}.{inner}"))[2:]
            continue
        yield f"| `{shown(name)}` | {_cell(field.default)} | {_cell(field.description)} |"


def api() -> str:
    """Every route, by what it is about; the answers themselves stand under /docs of a running service."""
    with tempfile.TemporaryDirectory() as folder:
        description = create_app(Settings(data_dir=Path(folder) / "data")).openapi()
    rows: dict[str, list[str]] = {}
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            said = " ".join(operation.get("description", "").split())
            asked = [
                f"`{one['name']}`" + (f": {one['description']}" if one.get("description") else "")
                for one in operation.get("parameters", [])
                if one["in"] == "query"
            ]
            tag = operation.get("tags", ["service"])[0]
            cells = f"`{method.upper()} {path}`", _cell(said), _cell("; ".join(asked))
            rows.setdefault(tag, []).append(f"| {' | '.join(cells)} |")
    lines = [
        "# API",
        "",
        "Written by `docs/generate.py` from the code. `/docs` of a running service has an example of every body and "
        "answer, `/openapi.json` the schemas. Errors are `application/problem+json` with a stable `code` and a "
        "sentence that says what to do.",
    ]
    for tag, found in sorted(rows.items()):
        lines += ["", f"## {tag.capitalize()}", "", "| route | does | query |", "|---|---|---|", *found]
    return "\n".join(lines) + "\n"


def _cell(value: object) -> str:
    if isinstance(value, BaseModel):
        value = getattr(value, "name", value)
    if isinstance(value, tuple):
        value = ",".join(str(part) for part in value)
    return "" if value is None else str(value).replace("|", "\\|")


def main() -> None:
    pages = {HERE / "api.md": api(), HERE / "catalogue.md": catalogue(), HERE / "settings.md": settings()}
    if "--check" in sys.argv:
        stale = [path.name for path, text in pages.items() if not path.exists() or path.read_text() != text]
        sys.exit(f"not up to date: {', '.join(stale)}; run docs/generate.py" if stale else 0)
    for path, text in pages.items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
