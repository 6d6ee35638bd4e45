"""Images: bytes in, pixels out."""
