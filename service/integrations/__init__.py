"""Annotation tools that a project works with: one folder each, with its routes, its client and what follows it."""
