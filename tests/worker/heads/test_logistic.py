"""What the search for coefficients brings into a process. What it finds, the tests of its heads say."""

import subprocess
import sys

FITS = """
import sys
import numpy as np
from worker.heads.logistic import Problems

inputs = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
targets = np.eye(2, dtype=np.float32)[np.arange(40) % 2][:, None]
assert len(list(Problems(inputs, targets).path(np.ones((40, 1), np.float32)))) > 1
print("torch._dynamo" in sys.modules)
"""


def test_the_first_head_does_not_wait_for_torchs_compiler() -> None:
    """Its import takes three seconds, in which somebody waits for a ranking."""
    fitted = subprocess.run([sys.executable, "-c", FITS], capture_output=True, text=True, check=True)

    assert fitted.stdout.strip() == "False"
