"""Hash trees: the share trees under a BlobId, and checks of shares and leaves against it."""
