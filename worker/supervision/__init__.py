"""The worker's processes: the supervisor holds the lease, the runner computes."""
