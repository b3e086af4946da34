"""The keeper: checks, repairs, renews, moves, collects and archives (docs/keeping.md)."""
