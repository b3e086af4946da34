"""Locks of files, in this file system and across all mounts of a volume."""
