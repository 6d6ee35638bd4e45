"""On a machine with a GPU: the tests of CUDA, then scoring and training against the limit, in six minutes.

    python -m benchmarks.gpu                 writes benchmarks/results/gpu.json
    python -m benchmarks.gpu --tiny          in a minute, also on a CPU; writes nothing

No network, no database, no faiss. What a bare machine with torch lacks is brought by benchmarks/gpu/wheels.sh. What
does not fit into the budget is left out, and said so.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from benchmarks.gpu.pool import Pool, pictures
from benchmarks.gpu.speed import Case, Timed, decoding, decoding_by_gpu, scoring, training
from benchmarks.report import RESULTS, Figure, write_report
from worker.device import available_cores, choose_device, use_threads

_TESTS_S = 150.0  # at most
# The batches of training: four views of each image, and their activations, fit into 40 GB.
_CASES = [
    Case("resnet50", 224, 128),
    Case("vit_small_patch16_224", 224, 128),
    Case("resnet18", 64, 256),
    Case("small", 64, 256),
]
_TINY = [Case("small", 32, 16), Case("resnet18", 32, 16)]


@dataclass
class Budget:
    seconds: float
    begun: float = field(default_factory=time.monotonic)
    skipped: list[str] = field(default_factory=list)

    @property
    def left(self) -> float:
        return self.seconds - (time.monotonic() - self.begun)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--budget-s", type=float, default=360, help="what takes longer is left out")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--tiny", action="store_true", help="a few small images, also on a CPU; writes nothing"
    )
    parser.add_argument("--no-tests", action="store_true", help="speed alone")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of gpu.json")
    parser.add_argument("--commit", default=None, help="of the code, where git does not say")
    options = parser.parse_args()
    budget, device = Budget(options.budget_s), choose_device(options.device)
    threads = use_threads(1 if options.tiny else None)
    if device.type == "cpu" and not options.tiny:
        parser.error("there is no CUDA device: --tiny tries it all on a CPU")
    passed = options.no_tests or tests(device, min(_TESTS_S, budget.left))
    with tempfile.TemporaryDirectory(prefix="shortlist-bench-") as name:
        figures: dict[str, Figure] = {
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            "torch": torch.__version__,
            "code": options.commit or _commit(),
            "threads": threads,
            "cores": available_cores(),
            "rounds": options.rounds,
            "cuda_tests": "left out" if options.no_tests else "passed" if passed else "failed",
        }
        figures |= speed(Path(name), device, options.tiny, options.rounds, budget)
        figures |= {"skipped": ", ".join(budget.skipped) or None, "seconds": budget.seconds - budget.left}
        written = device.type == "cuda" and not options.tiny
        command = f"python -m benchmarks.gpu --budget-s {options.budget_s:g} --rounds {options.rounds}"
        write_report("gpu", figures, command, options.results if written else Path(name))
    sys.exit(not passed)


def tests(device: torch.device, seconds: float) -> bool:
    """tests/cuda with no other conftest: that needs a database. On a CPU those that make sense there."""
    only = ["-m", "cuda"] if device.type == "cuda" else []
    command = [
        sys.executable,
        "-m",
        "pytest",
        *only,
        "-q",
        "--confcutdir=tests/cuda",
        "tests/cuda",
        "-p",
        "no:cacheprovider",
        "-o",
        "filterwarnings=default",
    ]
    try:
        return subprocess.run(command, timeout=seconds, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        print(f"tests/cuda took more than {seconds:.0f} s")
        return False


def speed(folder: Path, device: torch.device, tiny: bool, rounds: int, budget: Budget) -> dict[str, Figure]:
    """Every case once in a round would cost a warm-up each time: the rounds of a case follow each other, its limit
    between them.
    """
    sides, cases = ({32: (48, 96)}, _TINY) if tiny else ({224: (256, 2_048), 64: (96, 8_192)}, _CASES)
    pools: dict[int, Pool] = {}
    figures: dict[str, Figure] = {}
    for side, (larger, count) in sides.items():
        paths = pictures(folder / str(side), count, larger)
        pools[side] = Pool.of(paths, folder / f"data-{side}")
        figures[f"decoding_{larger}_to_{side}_images_per_s"] = decoding(pools[side], side)
        if device.type == "cuda":
            figures[f"decoding_{larger}_by_nvjpeg_images_per_s"] = decoding_by_gpu(pools[side], device)
    shard, least_s, repeat = (16, 0.1, 1) if tiny else (2_048, 1.5, 4)
    for case in cases:
        pool = pools[case.side]
        longer = Pool(pool.paths * repeat, pool.settings, pool.artifacts)
        kinds: dict[str, Callable[[], Timed]] = {
            "scoring": partial(scoring, case, longer, device, rounds, shard, least_s),
            "training": partial(training, case, pool, device, rounds, True, least_s),
            "training_from_files": partial(training, case, pool, device, rounds, False, least_s),
        }
        for kind, measure in kinds.items():
            name, begun = f"{kind}_{case.name}", time.monotonic()
            if budget.left < 20 and not tiny:
                budget.skipped.append(name)
                print(f"{name}: left out, {budget.left:.0f} s are left")
                continue
            found = measure().figures(name)
            figures |= found
            print(
                f"{name}: {found[f'{name}_images_per_s']:.0f} images/s, "
                f"{found[f'{name}_over_limit']:.2f} of the limit, took {time.monotonic() - begun:.0f} s",
                flush=True,
            )
    return figures


def _commit() -> str | None:
    done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


if __name__ == "__main__":
    main()
