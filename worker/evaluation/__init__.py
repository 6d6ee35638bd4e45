"""How good embeddings and heads are, measured on labels that they did not see."""
