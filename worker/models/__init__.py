"""Networks as plain data describes them: specs, layers, and what makes them quick."""
