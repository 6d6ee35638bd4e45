"""Projects: their settings, changes, copies, summary, advice and events."""
