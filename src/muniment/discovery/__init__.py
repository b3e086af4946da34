"""Rosters: where verified, unexpired node records come from."""
