"""Measurements against rivals and ceilings; never part of the test suite."""
