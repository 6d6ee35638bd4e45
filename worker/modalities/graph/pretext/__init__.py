"""Pretext tasks made for graphs."""
