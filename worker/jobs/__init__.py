"""Jobs of a worker, one file a kind, each load → compute → save. With `worker.main` the only worker code
that knows the database."""
