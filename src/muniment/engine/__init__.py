"""The client engine: runs the core's decisions on the ports, and owns every task and thread it needs.

`grid.Grid` is the face; docs/transfer.md says what runs between awaits, which limits hold and who owns what.
"""
