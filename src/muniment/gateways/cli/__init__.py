"""The command line, `muni`."""
