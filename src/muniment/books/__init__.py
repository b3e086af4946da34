"""Drivers of the port `BlobBook`: what a keeper remembers of a volume's blobs."""
