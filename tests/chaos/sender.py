"""A service's deliverer without the service: killed in the middle of a delivery by `tests.service.test_webhooks`."""

import sys

import anyio

from service.deliverer import Deliverer
from service.store.session import make_engine


def main(url: str, server_secret: str, lease_s: float) -> None:
    slots = anyio.CapacityLimiter(1)
    anyio.run(Deliverer(make_engine(url), server_secret.encode(), True, slots, lease_s=lease_s).run)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
