"""The items of a pool: registered, listed, previewed, withdrawn, queued, gold."""
