"""Drivers of the port `VolumeView`: where a client keeps the state that a volume's fold yields.

`sqlite` keeps it in a file, `memory` nowhere.  Both pass the one suite `muniment.testing.contracts.view`;
docs/drivers/views.md describes them.
"""
