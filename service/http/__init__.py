"""The HTTP layer around routes: dependencies, errors, streams, middleware."""
