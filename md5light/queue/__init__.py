"""Jobs and what is owed for them: all SQL."""
