"""The programs that run the service."""
