"""Judges what clients noted against what the volume has in the end: each register has one writer.

    a read that begins after an acknowledgement sees that version or a later one, whole
    what a read sees was begun before the read ended, and is exactly what was begun
    what was acknowledged as entry i is what the volume has after entry i
    versions follow each other in the order in which they were written
    what was not acknowledged is there whole, or not at all
    two members who know as many entries have the same state

Pure: journals in, findings out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.drill.journal import Line

_ABSENT: Final = ""
"""The print of a register of which no file is there."""


@dataclass(frozen=True)
class Version:
    """What a writer began to write."""

    register: str
    number: int
    begun_s: float
    size: int


@dataclass
class Register:
    """What is known of one register.

    Attributes:
        acknowledged: (time, version, index) in the order of time.
        stored: (index, print) of what the volume has, in the order of entries.
    """

    acknowledged: list[tuple[float, int, int]] = field(default_factory=list)
    stored: Sequence[tuple[int, str]] = ()


class History:
    """All that was noted.

    Args:
        journals: lines of each client.
        stored: for each register what the volume has in the end: (index, print) for every version.
    """

    def __init__(
        self, journals: Mapping[str, Sequence[Line]], stored: Mapping[str, Sequence[tuple[int, str]]]
    ) -> None:
        self._journals = journals
        self.versions: dict[str, Version] = {}
        self.registers: dict[str, Register] = {}
        for name, versions in stored.items():
            self.registers[name] = Register(stored=sorted(versions))
        for line in self._lines("begin"):
            self.versions[line["print"]] = Version(
                line["register"], line["version"], line["at_s"], line["size"]
            )
        for line in self._lines("write"):
            of = self.registers.setdefault(line["register"], Register())
            of.acknowledged.append((line["at_s"], line["version"], line["result"]))
        self.wrong_bytes: list[str] = []
        self.lost: list[str] = []
        self.disagreements: list[str] = []

    def judge(self) -> None:
        """Fill `wrong_bytes`, `lost` and `disagreements`."""
        for name, register in self.registers.items():
            self._judge_stored(name, register)
        for line in self._lines("read"):
            self._judge_read(line)
        for line in self._lines("past"):
            self._judge_past(line)
        self._judge_states()

    def _lines(self, what: str) -> Iterable[Line]:
        for lines in self._journals.values():
            for line in lines:
                if line["what"] == what:
                    yield line

    def _judge_stored(self, name: str, register: Register) -> None:
        at = {index: self._number(name, found, f"entry {index}") for index, found in register.stored}
        for _, version, index in register.acknowledged:
            if at.get(index) != version:
                self.lost.append(f"{name}: version {version}, acknowledged as entry {index}, is not there")
        numbers = [number for number in at.values() if number is not None]
        if numbers != sorted(set(numbers)):
            self.lost.append(f"{name}: versions are stored in the order {numbers}")

    def _judge_read(self, line: Line) -> None:
        name, (at, found) = line["register"], line["result"]
        where = f"read of {line['at_s']:.3f} at entry {at}"
        number = self._number(name, found, where)
        if number is None:
            return
        due = max(
            (version for when_s, version, _ in self._acknowledged(name) if when_s <= line["began_s"]),
            default=0,
        )
        if number < due:
            self.lost.append(f"{name}: {where} saw version {number} after {due} was acknowledged")
        if number and self.versions[found].begun_s > line["at_s"]:
            self.wrong_bytes.append(f"{name}: {where} saw version {number} before it was begun")

    def _judge_past(self, line: Line) -> None:
        name, (at, found) = line["register"], line["result"]
        register = self.registers.get(name, Register())
        wanted = max(((index, is_) for index, is_ in register.stored if index <= at), default=(0, _ABSENT))[1]
        if found != wanted:
            self.wrong_bytes.append(f"{name}: a read of entry {at} saw what was not there then")

    def _acknowledged(self, name: str) -> Sequence[tuple[float, int, int]]:
        return self.registers.get(name, Register()).acknowledged

    def _number(self, name: str, found: str, where: str) -> int | None:
        """The version that has this print; 0: nothing is there; None: nobody wrote it, which is noted."""
        if found == _ABSENT:
            return 0
        version = self.versions.get(found)
        if version is None or version.register != name:
            self.wrong_bytes.append(f"{name}: {where} is what nobody wrote there")
            return None
        return version.number

    def _judge_states(self) -> None:
        states: dict[int, tuple[str, str]] = {}
        for who, lines in self._journals.items():
            for line in lines:
                if line["what"] == "state":
                    other, digest = states.setdefault(line["size"], (who, line["digest"]))
                    if digest != line["digest"]:
                        self.disagreements.append(
                            f"{who} and {other} have different states of {line['size']} entries"
                        )
