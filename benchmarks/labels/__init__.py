"""Labels that a strategy saves against random selection: `python -m benchmarks.labels`.

Every arm gets the same embeddings, the same head and the same seeds; only the picks differ.
"""
