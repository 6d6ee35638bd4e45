"""Training of pretext models: one loop, on one device or by several trainers."""
