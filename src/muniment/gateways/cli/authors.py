"""Who made an entry, as the volume's members know him."""

from __future__ import annotations

from typing import TYPE_CHECKING

from muniment.gateways.cli.show import SHORT_CHARS
from muniment.ids import MemberId, id_text

if TYPE_CHECKING:
    from muniment.engine.opened import OpenVolume


def author_name(opened: OpenVolume, author: MemberId) -> str:
    """The name on his card; of one who has gone, the beginning of his id."""
    member = opened.volume.membership.members.get(author)
    return member.card.name if member is not None else id_text(author)[:SHORT_CHARS]
