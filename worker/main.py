"""The worker program: a supervisor and its warm runner. Never imports torch itself (see `worker.runner`)."""

import argparse
import importlib.util
import signal
import sys

from service.errors import ShortlistError
from service.logs import configure_logs
from service.settings import Settings
from service.store import migrate
from service.store.session import make_engine
from worker.runner_process import Start
from worker.supervisor import Supervisor


class NoTorch(ShortlistError):
    """A worker needs torch, which is not installed here. Install it with: pip install 'shortlist[worker]'"""

    code = "no_torch"


def run(
    settings: Settings, until_idle: bool = False, jobs_package: str = "worker.jobs", plug_ins: bool = True
) -> None:
    """Work until SIGTERM or SIGINT; with `until_idle` also until nothing is queued or running.

    Call it in the main thread. Raises `NotMigrated`, `NoTorch`, `RunnerDoesNotStart`.
    """
    configure_logs(settings)
    engine = make_engine(settings.database)
    try:
        migrate.check(engine)
        if plug_ins and importlib.util.find_spec("torch") is None:
            raise NoTorch
        supervisor = Supervisor(settings, engine, Start(settings, jobs_package, plug_ins))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: supervisor.stop())
        supervisor.run(until_idle)
    finally:
        engine.dispose()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m worker", description=__doc__)
    parser.add_argument("--until-idle", action="store_true", help="end when nothing is queued or running")
    arguments = parser.parse_args()
    try:
        run(Settings(), arguments.until_idle)
    except ShortlistError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
