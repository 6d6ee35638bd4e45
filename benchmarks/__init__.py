"""Benchmarks, one command each. Each writes `results/NAME.json` and prints the same as a table."""
