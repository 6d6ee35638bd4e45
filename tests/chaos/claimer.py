"""A worker without frills, quick to start: claims, takes its time, publishes one effect behind the fence."""

import os
import random
import sys
import time

import sqlalchemy as sa

from service.store import jobs
from service.store.session import make_engine, write_session


def main(url: str, lease_s: float) -> None:
    engine = make_engine(url)
    while True:
        job = jobs.claim(engine, f"claimer {os.getpid()}", ["short"], lease_s)
        if job is None:
            time.sleep(0.02)
            continue
        time.sleep(random.uniform(0.005, 0.04))
        try:
            jobs.heartbeat(engine, job, lease_s, 0.5, "half way")
            with write_session(engine) as session:
                jobs.fence(session, job)
                effect = sa.text("INSERT INTO effects VALUES (:job_id, :token, :worker)")
                session.execute(effect, {"job_id": job.id, "token": job.token, "worker": os.getpid()})
                jobs.succeed(session, job)
        except jobs.LeaseLost:
            continue


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
