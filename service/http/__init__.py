"""What surrounds routes: dependencies, errors, streams, middleware."""
