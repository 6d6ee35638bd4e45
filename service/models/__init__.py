"""Pretext models, scores, heads and jobs, as people ask for them and see them."""
