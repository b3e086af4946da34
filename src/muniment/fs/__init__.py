"""A volume as a POSIX file system, by inode numbers: what mounts and file servers are thin shells over.

    filesystem     the operations, and nothing else
    tree           the present tree: the volume's state with what is not in its log yet
    committer      the one task that brings changes to the log, many in one entry
    dirty, content what was written and is not stored yet; bytes of files out of all places
    locks, holes   who has what locked, here and in other mounts; room and holes in files
    attributes     extended attributes, and access lists among them
    store          the volume and the grid below, and the only file that calls the engine

It knows nothing of FUSE or any other gateway.
"""
