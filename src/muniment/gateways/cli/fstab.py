"""What `mount -t muniment` and fstab say, as a line of `muni mount`.

mount(8) calls `mount.muniment VOL FOLDER [-sfnvrw] [-N NAMESPACE] [-t TYPE] [-o OPTIONS]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_BEFORE: Final = ("home", "grid")
"""Options that `muni` has before its command: at boot nobody has a HOME."""

_DEFAULTS: Final = frozenset({"atime", "noatime", "relatime", "users", "owner", "group"})
"""What mounts do in any case, and what tells mount(8) who may call it."""

_MEANT_FOR_OTHERS: Final = ("x-", "X-", "comment=")


def as_command(words: Sequence[str]) -> list[str] | None:
    """The words for `muni`; None: nothing is to be done (`-f`).

    Options that are not known go through, so that `muni mount` refuses them: who asks for `nosymfollow` and
    gets a mount relies on it.
    Raises: ValueError: an option lacks its value.
    """
    places: list[str] = []
    texts: list[str] = []
    flags = ""
    rest = iter(words)
    for word in rest:
        if word in ("-o", "-t", "-N"):
            value = next(rest, None)
            if value is None:
                raise ValueError(f"{word} lacks its value")
            texts += value.split(",") if word == "-o" else []
        elif word.startswith("-o"):
            texts += word[2:].split(",")
        elif word.startswith("-") and word != "-":
            flags += word[1:]
        else:
            places.append(word)
    if "f" in flags:
        return None
    texts += ["ro"] if "r" in flags else []
    before, after, kept = [], [], []
    for text in filter(None, texts):
        name, _, value = text.partition("=")
        if name in _BEFORE:
            before += [f"--{name}", value]
        elif name == "at":
            after += ["--at", value]
        elif name not in _DEFAULTS and not text.startswith(_MEANT_FOR_OTHERS):
            kept.append(text)
    after += ["-o", ",".join(kept)] if kept else []
    return [*before, "mount", *after, "--", *places]
