"""The computing of selection: a strategy's view of the pool, and the spaces, seeds and clusters that it picks from."""
