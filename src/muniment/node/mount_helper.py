"""`mount.muniment`: what mount(8) calls for `mount -t muniment` and for lines of fstab."""

from __future__ import annotations

import sys

from muniment.gateways.cli.app import run
from muniment.gateways.cli.fstab import as_command
from muniment.node.main import Root


def main() -> None:
    """Entry point."""
    try:
        words = as_command(sys.argv[1:])
    except ValueError as error:
        sys.exit(f"mount.muniment: {error}; type: mount -t muniment VOL FOLDER -o OPTIONS")
    sys.exit(0 if words is None else run(Root(), words))


if __name__ == "__main__":
    main()
