"""Pretext tasks made for recordings."""
