"""Changes on their way into the log, and those of others on their way here."""
