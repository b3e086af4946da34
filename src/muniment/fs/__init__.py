"""A volume as a POSIX file system, by inode numbers: what mounts and file servers are thin shells over.

    filesystem     the operations on names and attributes; open_files those on open files
    working_tree   what both work on
    names          names and attributes: the newest state, every change since, and the past
    content        bytes: read out of all places, written, and stored before an entry names them
    committing     the one task that brings changes to the log, many in one entry; and what others do
    locking        who has what locked, here and in other mounts
    unsaved        what could not be saved, kept for the next mount
    store          the volume and the grid below, and the only file that calls the engine

It knows nothing of FUSE or any other gateway.
"""
