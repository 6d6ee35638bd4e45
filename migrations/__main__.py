"""Write a revision from what changed in tables.py: ``python -m migrations 0002 "what changed"``.

While nothing is released there is one initial revision; to make it anew, delete it first:
``rm migrations/versions/0001_*.py && python -m migrations 0001 "initial tables"``. Then `make format`.
"""

import sys
import tempfile
from pathlib import Path

from service.store import migrate
from service.store.session import make_engine

revision, message = sys.argv[1:]
with tempfile.TemporaryDirectory() as folder:
    engine = make_engine(f"sqlite:///{Path(folder) / 'empty.db'}")
    if migrate.newest() is not None:
        migrate.upgrade(engine)
    migrate.revise(engine, message, revision)
    engine.dispose()
