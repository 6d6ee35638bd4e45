"""The worker: computes what the service hands out. Never answers HTTP."""

import os

# Read by OpenMP when torch is first imported, so it must stand here. By default its idle threads spin: on a
# machine that does anything else beside training, that made a step five times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
