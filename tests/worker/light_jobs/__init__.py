"""Job kinds for tests of the supervisor: no torch, effects are artifacts."""
