"""The worker: computes what the service hands out. Never answers HTTP."""
