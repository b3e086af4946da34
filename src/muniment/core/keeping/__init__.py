"""What a keeper decides, without I/O (docs/keeping.md)."""
