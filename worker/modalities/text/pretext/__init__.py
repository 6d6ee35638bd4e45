"""Pretext tasks made for texts."""
