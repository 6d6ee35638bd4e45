"""Small programs that use the Python client."""
