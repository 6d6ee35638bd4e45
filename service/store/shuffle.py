"""An item's place in the project's random order, that of the control arm; reproducible by seed and key."""

from hashlib import blake2b


def shuffle_position(seed: int, key: str) -> int:
    """Uniform in [0, 2**31)."""
    return int.from_bytes(blake2b(f"{seed}:{key}".encode(), digest_size=4).digest(), "big") >> 1
