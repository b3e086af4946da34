"""A command that goes on in the background: its parent waits until it serves, or has failed.

The child has the terminal until then, so that it can ask for a passphrase, and its error is told as by any
command.  It must be begun before any thread or loop is: only the calling thread lives on in a fork.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

_READY = b"1"


@dataclass(slots=True)
class Background:
    """One of the two processes.

    Attributes:
        child: its process number in the parent; 0 in the child.
    """

    child: int
    pipe: int

    @classmethod
    def begin(cls) -> Background:
        """Become two; both return."""
        sys.stdout.flush()
        sys.stderr.flush()
        reading, writing = os.pipe()
        child = os.fork()
        os.close(writing if child else reading)
        return cls(child, reading if child else writing)

    @property
    def is_parent(self) -> bool:
        """Whether this is the process that the user waits for."""
        return self.child != 0

    def wait(self) -> int:
        """In the parent: until the child serves, or ended; the exit code to end with.

        Ctrl-C meanwhile goes to both, and the child cleans up.
        """
        try:
            said = os.read(self.pipe, 1)
        except KeyboardInterrupt:
            said = b""
        if said == _READY:
            return 0
        _, status = os.waitpid(self.child, 0)
        code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else 128 - code

    def ready(self, log_file: Path) -> None:
        """In the child: it serves.  From now on it has no terminal, and what it says goes to a file."""
        os.setsid()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        null = os.open(os.devnull, os.O_RDONLY)
        log = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(null, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(null)
        os.close(log)
        os.write(self.pipe, _READY)
        os.close(self.pipe)
