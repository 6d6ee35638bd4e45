"""Access control: API keys, rate limits, signed URLs and idempotency."""
