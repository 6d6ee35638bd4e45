"""Computing knows no database: where there is no SQLAlchemy, it goes all the way."""

import os
import subprocess
import sys
from pathlib import Path

from tests.worker.processes import REPOSITORY


def test_computing_needs_no_database(tmp_path: Path) -> None:
    """A module that raises stands in SQLAlchemy's place, also for the processes that engines start."""
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "sqlalchemy.py").write_text('raise ImportError("computing knows no database")\n')
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(blocked), str(REPOSITORY)])}

    def ended(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *arguments]
        return subprocess.run(
            command, env=environment, cwd=REPOSITORY, capture_output=True, text=True, timeout=120
        )

    assert "computing knows no database" in ended("-c", "import service.store.tables").stderr
    computed = ended("-m", "tests.worker.without_database", str(tmp_path))

    assert computed.returncode == 0, computed.stderr
