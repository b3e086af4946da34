"""Hashing, identities, content cipher, signed records and account tokens: pure functions over bytes."""
