"""Bytes of files: read out of all places, written, and stored before an entry names them."""
