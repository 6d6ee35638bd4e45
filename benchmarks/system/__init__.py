"""How many labels does the whole system save against what a team does today? `python -m benchmarks.system`."""
