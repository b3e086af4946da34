"""The node and introducer processes: configuration, ledger, service, HTTP calls, and the composition root."""
