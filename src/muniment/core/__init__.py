"""Decisions without I/O: sealing, manifests, placement and the transfer machines."""
