"""Pretext tasks made for pairs."""
