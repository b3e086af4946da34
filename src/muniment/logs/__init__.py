"""Where logs are kept: drivers of `ports.LogStore`."""
