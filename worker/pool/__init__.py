"""The pool's items as tensors: read, decoded, cached, shared."""
