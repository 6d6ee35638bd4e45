"""What kinds of items there are: bytes in, tensors out."""
