"""HTTP/1.1 over TLS 1.3, pinned to NodeIds: the server host, and the client driver of the node ports."""
