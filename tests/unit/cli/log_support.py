"""What the commands on logs need: a home with a volume, a log service's folder, evidence."""

from __future__ import annotations

from pathlib import Path

from tests.unit.cli.support import FakeComposition, muni

from muniment.crypto.checkpoints import sign_checkpoint
from muniment.crypto.identity import Identity
from muniment.engine.evidence import contradiction
from muniment.ids import VolumeId
from muniment.node.compose import init_log
from muniment.node.config import LogConfig
from muniment.spec.checkpoint import Checkpoint, origin_of

LIAR = Identity.from_seed(b"l" * 32)
VOLUME = VolumeId(b"v" * 32)


def home_with_volume(world: FakeComposition, tmp_path: Path) -> Path:
    """A home with an identity and the volume `books`, whose log is in it."""
    home = tmp_path / "home"
    assert muni(world, "--home", home, "identity", "new", "--unlocked").code == 0
    assert muni(world, "--home", home, "volume", "create", "books").code == 0
    return home


def evidence_file(folder: Path) -> Path:
    """Two logs of the same size, signed by one service."""
    notes = [sign_checkpoint(LIAR, Checkpoint(origin_of(VOLUME), 3, root * 32)) for root in (b"a", b"b")]
    file = folder / "evidence"
    file.write_bytes(contradiction(LIAR.public_key, VOLUME, (notes[0], notes[1]), None))
    return file


def log_words(name: str, world: FakeComposition, tmp_path: Path) -> list[str | Path]:
    """The arguments of a command line that goes well, `--home` in front."""
    home = home_with_volume(world, tmp_path)
    init_log(tmp_path / "log", LogConfig())
    arguments: dict[str, list[str | Path]] = {
        "audit": ["--offline", "books"],
        "evidence verify": [evidence_file(tmp_path)],
        "log audit": [tmp_path / "log"],
        "log backup": [tmp_path / "log", tmp_path / "copies"],
        "log archive": ["books"],
        "log rehost": ["books", tmp_path / "log"],
    }
    if name in ("log backup", "log audit"):
        assert muni(world, "--home", home, "log", "rehost", "books", tmp_path / "log").code == 0
    return ["--home", home, *name.split(), *arguments[name]]
