"""A volume in the machine's own tree of files, through FUSE: a thin shell over `fs/`.

The way of a request:

    device       the kernel's end: made and taken away by fusermount3
    session      reads requests, answers them, owns their tasks
    protocol     the bytes of both, as the kernel lays them out
    operations   which request is which call of the file system
      names        names and attributes
      open_files   open files and folders
      locks        on ranges and whole files
    attributes   an inode as the kernel wants it
    notices      what the kernel must forget

    serving      mounting, serving, and ending so that nothing is lost and no dead mount stays
    machine      what is missing on this machine, and what to type
    places       where volumes are mounted on this machine

Needs FUSE in the kernel and fusermount3; see docs/adr/0007-the-kernels-own-protocol.md.
"""
