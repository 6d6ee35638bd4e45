"""Labels that the whole system saves against what a team does today: `python -m benchmarks.system`."""
