"""The HTTP face, one file a resource; no rules, no SQL."""
