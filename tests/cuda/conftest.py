"""The device of these tests: CUDA where there is one, and the CPU, on which they show that they are sound.

`pytest -m cuda --confcutdir=tests/cuda tests/cuda` needs no database, and neither do the tests themselves.
"""

import pytest
import torch


@pytest.fixture(params=[pytest.param("cuda", marks=pytest.mark.cuda), "cpu"])
def device(request: pytest.FixtureRequest) -> torch.device:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("this machine has no CUDA device")
    return torch.device(request.param)
