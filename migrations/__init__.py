"""The database's history, one revision a file in `versions/`; the same on SQLite and PostgreSQL."""
