"""Names and attributes: the newest state, every change since, and the past."""
