"""What an item's bytes are, and where they lie, without torch: both programs import it."""
