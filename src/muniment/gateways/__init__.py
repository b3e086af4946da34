"""Gateways: ways in for people and programs.  Each parses, makes one call to the engine, and maps errors."""
