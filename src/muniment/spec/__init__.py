"""Every byte on disk and wire, defined once: one module per format, one page in docs/spec/ for each."""
