"""A volume in the machine's own tree of files, through FUSE: a thin shell over `fs/`.

    operations   each call of the kernel is one call of the file system, and its error an errno
    attributes   an inode as the kernel wants it
    serving      mounting, serving, and ending so that nothing is lost and no dead mount stays
    machine      what is missing on this machine, and what to type
    places       where volumes are mounted on this machine, and taking them away

Needs pyfuse3 (`muniment[mount]`), which is imported here only, and FUSE in the kernel.
"""
