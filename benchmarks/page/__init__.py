"""The page as people see it: pictures of every view of a realistic project, and how fast it is with a million items."""
