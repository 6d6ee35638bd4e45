"""Evaluation of embeddings and heads on labels that they did not see."""
