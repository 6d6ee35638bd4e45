"""A service's deliverer without the service: a test of webhooks kills it in the middle of a delivery."""

import sys

import anyio

from service.store.session import make_engine
from service.webhooks.deliverer import Deliverer


def main(url: str, server_secret: str, lease_s: float) -> None:
    slots = anyio.CapacityLimiter(1)
    anyio.run(Deliverer(make_engine(url), server_secret.encode(), True, slots, lease_s=lease_s).run)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
