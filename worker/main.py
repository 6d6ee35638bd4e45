"""The worker program: a supervisor and its warm runners. It never imports torch itself."""

import argparse
import importlib.util
import os
import signal
import sys
import threading

from service.errors import DatabaseUnreachable, ShortlistError
from service.logs import configure_logs
from service.settings import Settings, read_settings
from service.store import migrate
from service.store.session import open_database
from worker.supervision.supervisor import RunnerDoesNotStart, Supervisor

NEEDS_A_PERSON = 78  # exit status EX_CONFIG of sysexits.h


class NoTorch(ShortlistError):
    """A worker needs torch, which is not installed here. Install it with: pip install 'shortlist[worker]'"""

    code = "no_torch"


def run(
    settings: Settings, until_idle: bool = False, jobs_package: str = "worker.jobs", plug_ins: bool = True
) -> None:
    """Work until SIGTERM or SIGINT; with `until_idle` also until nothing is queued or running.

    Call it in the main thread. Raises `DatabaseUnreachable`, `NotMigrated`, `NoTorch`, `RunnerDoesNotStart`.
    """
    configure_logs(settings)
    engine = open_database(settings.database)
    try:
        migrate.check(engine)
        if plug_ins and importlib.util.find_spec("torch") is None:
            raise NoTorch
        supervisor = Supervisor(settings, engine, jobs_package, plug_ins)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: supervisor.stop())
        supervisor.run(until_idle)
    finally:
        engine.dispose()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m worker", description=__doc__)
    parser.add_argument("--until-idle", action="store_true", help="end when nothing is queued or running")
    parser.add_argument(
        "--stop-on-eof", action="store_true", help="stop when standard input ends: with whoever started this"
    )
    arguments = parser.parse_args()
    if arguments.stop_on_eof:
        threading.Thread(target=_stop_on_eof, daemon=True).start()
    try:
        run(read_settings(), arguments.until_idle)
    except (DatabaseUnreachable, RunnerDoesNotStart) as error:
        sys.exit(str(error))
    except ShortlistError as error:  # starting again would not help
        sys.stderr.write(f"{error}\n")
        sys.exit(NEEDS_A_PERSON)


def _stop_on_eof() -> None:
    while os.read(sys.stdin.fileno(), 1024):  # not through sys.stdin: its lock would be held at exit
        pass
    signal.raise_signal(signal.SIGTERM)


if __name__ == "__main__":
    main()
