"""Pretext tasks made for videos."""
