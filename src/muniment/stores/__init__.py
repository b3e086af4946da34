"""Drivers of the port `ShareStore`: where a node keeps share records.

`posix` writes to a folder of a local disk, `object` to any object store, `memory` nowhere.  All three pass
the one suite `muniment.testing.contracts.share_store`; each has a page under docs/drivers/.
"""
