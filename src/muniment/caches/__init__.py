"""Drivers of the port `BlobCache`: blobs that were read, still sealed, on this machine."""
