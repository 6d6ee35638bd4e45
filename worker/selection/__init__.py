"""Which items next, as computing: what a strategy sees, and the spaces, seeds and clusters that it picks from."""
