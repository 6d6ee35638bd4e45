"""What a worker can do, one file a job kind, each load → compute → save. With `worker.main` the only worker code
that knows the database."""
