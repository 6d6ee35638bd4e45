"""Build the page from its source into `service/web/static`, and record what it was built from.

.venv/bin/python web/build.py           builds; needs node and npm
.venv/bin/python web/build.py --check   ends with 1 where what is committed is not what this source was built to
"""

import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from service.main import create_app
from service.settings import Settings

HERE = Path(__file__).parent
BUILT = HERE.parent / "service" / "web" / "static"
RECORD = BUILT / "build.json"
_NOT_SOURCE = ("node_modules", "__pycache__", ".gitignore", "build.py")
_TYPES = HERE / "src" / "schema.d.ts"  # of the API, written here


def build() -> None:
    with tempfile.TemporaryDirectory() as folder:
        description = Path(folder) / "openapi.json"
        app = create_app(Settings(data_dir=Path(folder) / "data"))
        description.write_text(json.dumps(app.openapi()), encoding="utf-8")
        if not (HERE / "node_modules").exists():
            _run("npm", "ci", "--no-audit", "--no-fund")
        _run("npx", "openapi-typescript", str(description), "-o", str(_TYPES))
    _run("npm", "run", "--silent", "build")
    RECORD.write_text(json.dumps(record(), indent=2) + "\n", encoding="utf-8")


def record() -> dict[str, dict[str, str]]:
    """SHA-256 of each source file and of each built one, so that no test needs node."""
    sources = [path for path in HERE.rglob("*") if path != _TYPES and not set(_NOT_SOURCE) & set(path.parts)]
    built = [path for path in BUILT.rglob("*") if path != RECORD]
    return {"source": _hashes(HERE, sources), "built": _hashes(BUILT, built)}


def differences() -> list[str]:
    known, now = json.loads(RECORD.read_text(encoding="utf-8")), record()
    return [
        f"{kind}/{name}"
        for kind in ("source", "built")
        for name in sorted(known[kind].keys() | now[kind].keys())
        if known[kind].get(name) != now[kind].get(name)
    ]


def _hashes(folder: Path, paths: list[Path]) -> dict[str, str]:
    files = sorted(path for path in paths if path.is_file())
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }


def _run(*command: str) -> None:
    try:
        subprocess.run(command, cwd=HERE, check=True)
    except FileNotFoundError:
        sys.exit(
            f"{command[0]} is missing: building the page takes Node.js 20.19 or newer. Using it takes none."
        )
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)


if __name__ == "__main__":
    if sys.argv[1:] != ["--check"]:
        build()
    elif changed := differences():
        sys.exit(
            f"Not what it was built from: {', '.join(changed)}. Run `make web`, and commit what it writes."
        )
