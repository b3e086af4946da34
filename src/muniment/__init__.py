"""Muniment: a distributed file system for records that must survive and must be provable."""
