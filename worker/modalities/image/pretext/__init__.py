"""Pretext tasks made for images."""
