"""The HTTP service: projects, items, rounds, labels. Never loads torch."""
