"""Where durable work is kept: drivers of `ports.VisibleQueue`, under `testing.contracts.work_queue`."""
