"""Where scoring shards run."""
