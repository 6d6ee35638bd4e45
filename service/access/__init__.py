"""Who may call, how often, and that nothing is done twice."""
