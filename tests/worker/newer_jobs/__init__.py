"""The job kinds of a newer program, which knows one more."""
