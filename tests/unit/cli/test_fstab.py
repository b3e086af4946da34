"""What mount(8) says, as a line of `muni`."""

from __future__ import annotations

import pytest

from muniment.gateways.cli.fstab import as_command


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("books /srv", "mount -- books /srv"),
        ("books /srv -o rw", "mount -o rw -- books /srv"),
        ("books /srv -n -v -r", "mount -o ro -- books /srv"),
        ("-o ro books /srv", "mount -o ro -- books /srv"),
        ("books /srv -osync,lax -t muniment -N /proc/1/ns/mnt", "mount -o sync,lax -- books /srv"),
        (
            "books /srv -o rw,home=/root/m,grid=/etc/roster,relatime,x-systemd.automount,_netdev",
            "--home /root/m --grid /etc/roster mount -o rw,_netdev -- books /srv",
        ),
        ("books /srv -o at=year-end,exec,suid", "mount --at year-end -o exec,suid -- books /srv"),
        ("books /srv -o nosuid,cache=1GiB", "mount -o nosuid,cache=1GiB -- books /srv"),
    ],
)
def test_options_go_where_muni_has_them(said: str, wanted: str) -> None:
    assert as_command(said.split()) == wanted.split()


def test_a_time_with_spaces_stays_one_word() -> None:
    assert as_command(["b", "/d", "-o", "at=2h ago"]) == ["mount", "--at", "2h ago", "--", "b", "/d"]


def test_nothing_is_done_for_show_and_without_a_value() -> None:
    assert as_command(["-f", "books", "/srv"]) is None
    with pytest.raises(ValueError, match="-o"):
        as_command(["books", "/srv", "-o"])
