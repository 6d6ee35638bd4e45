"""Items' pretext losses and embeddings, and the duplicates among them."""
