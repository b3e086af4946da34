"""Where `muni` and `python -m muniment` begin, before anything is loaded."""

from __future__ import annotations

import signal


def main() -> None:
    """Entry point."""
    # Until the program is loaded there is nothing to clean up: Ctrl-C ends it at once and without a word.
    heeded = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if heeded:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from muniment.node.main import main as run

    if heeded:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run()


if __name__ == "__main__":
    main()
