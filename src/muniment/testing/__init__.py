"""Fakes, fault wrappers and contract suites; shipped, since drivers elsewhere need them too."""
