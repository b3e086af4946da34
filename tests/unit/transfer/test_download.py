"""The download machine, transition by transition."""

from __future__ import annotations

from muniment.core.download import (
    Begin,
    Blame,
    Check,
    Checked,
    Download,
    Fail,
    Fetch,
    Finish,
    GiveUp,
    Late,
    Locate,
    Located,
    Lost,
    Missing,
    Received,
    Settled,
    Withdraw,
    Withdrawn,
)
from muniment.core.placement import Slot
from muniment.ids import BlobId, NodeId, ShareNumber

BLOB = BlobId(b"b" * 32)


def node(number: int) -> NodeId:
    return NodeId(bytes([number]) * 32)


def slot(share: int, at: int) -> Slot:
    return Slot(ShareNumber(share), node(at))


def shares(*numbers: int) -> frozenset[ShareNumber]:
    return frozenset(ShareNumber(number) for number in numbers)


def begun(k: int, n: int, *, nodes: int | None = None) -> Download:
    download = Download(
        BLOB, k, [slot(i, i) for i in range(n)], [node(i) for i in range(n if nodes is None else nodes)]
    )
    assert download.handle(Begin()) == [Fetch(slot(i, i)) for i in range(k)]
    return download


def test_the_first_k_shares_are_enough() -> None:
    download = begun(2, 3)
    assert download.handle(Received(slot(1, 1))) == []
    assert download.handle(Received(slot(0, 0))) == [Check((slot(0, 0), slot(1, 1)), ())]
    assert download.handle(Checked()) == [Finish((slot(0, 0), slot(1, 1))), Settled()]


def test_a_missing_share_is_replaced_by_the_next_expected() -> None:
    download = begun(2, 3)
    assert download.handle(Missing(slot(0, 0))) == [Fetch(slot(2, 2))]
    download.handle(Received(slot(1, 1)))
    assert download.handle(Received(slot(2, 2))) == [Check((slot(1, 1), slot(2, 2)), ())]


def test_when_the_plan_is_used_up_everybody_is_asked_what_they_have() -> None:
    download = begun(2, 2, nodes=4)
    assert download.handle(Missing(slot(0, 0))) == [Locate(node(i)) for i in range(4)]
    assert download.handle(Located(node(0), shares())) == []
    assert download.handle(Located(node(3), shares(0, 1))) == [Fetch(slot(0, 3))]
    assert download.handle(Located(node(3), shares(0))) == []  # asked once, heard once


def test_a_late_share_is_raced_by_one_more() -> None:
    download = begun(2, 4)
    download.handle(Received(slot(0, 0)))
    assert download.handle(Late()) == [Fetch(slot(2, 2))]
    assert download.handle(Received(slot(2, 2))) == [Check((slot(0, 0), slot(2, 2)), ())]
    assert download.handle(Checked()) == [Finish((slot(0, 0), slot(2, 2))), Withdraw(slot(1, 1))]
    assert download.handle(Withdrawn(slot(1, 1))) == [Settled()]


def test_the_late_share_may_arrive_first() -> None:
    download = begun(2, 3)
    download.handle(Received(slot(0, 0)))
    download.handle(Late())
    assert download.handle(Received(slot(1, 1))) == [Check((slot(0, 0), slot(1, 1)), ())]
    assert download.handle(Received(slot(2, 2))) == []
    assert download.handle(Checked()) == [Finish((slot(0, 0), slot(1, 1))), Settled()]


def test_each_late_share_is_raced_once() -> None:
    download = begun(2, 6)
    assert download.handle(Late()) == [Fetch(slot(2, 2)), Fetch(slot(3, 3))]
    assert download.handle(Late()) == [Fetch(slot(4, 4)), Fetch(slot(5, 5))]
    assert download.handle(Late()) == [Locate(node(i)) for i in range(6)]


def test_a_liar_is_named_and_not_asked_again() -> None:
    download = Download(
        BLOB, 2, [slot(0, 0), slot(1, 1), slot(2, 0), slot(3, 3)], [node(0), node(1), node(3)]
    )
    download.handle(Begin())
    download.handle(Received(slot(0, 0)))
    download.handle(Received(slot(1, 1)))
    assert download.handle(Checked(((slot(0, 0), "leaf 3"),))) == [
        Blame(slot(0, 0), "leaf 3"),
        Fetch(slot(3, 3)),
    ]
    assert download.handle(Received(slot(3, 3))) == [Check((slot(3, 3),), (slot(1, 1),))]
    assert download.handle(Checked()) == [Finish((slot(1, 1), slot(3, 3))), Settled()]


def test_a_node_that_did_not_answer_is_not_asked_for_another_share() -> None:
    download = Download(BLOB, 1, [slot(0, 0), slot(1, 0), slot(2, 1)], [node(0), node(1)])
    assert download.handle(Begin()) == [Fetch(slot(0, 0))]
    assert download.handle(Lost(slot(0, 0))) == [Fetch(slot(2, 1))]


def test_a_node_with_another_share_than_expected_is_found() -> None:
    download = begun(2, 2)
    download.handle(Received(slot(0, 0)))
    assert download.handle(Missing(slot(1, 1))) == [Locate(node(0)), Locate(node(1))]
    assert download.handle(Located(node(1), shares(5))) == [Fetch(slot(5, 1))]


def test_too_few_shares_says_how_many_good_ones_were_found() -> None:
    download = begun(2, 2)
    download.handle(Received(slot(0, 0)))
    download.handle(Missing(slot(1, 1)))
    download.handle(Located(node(0), shares(0)))
    assert download.handle(Located(node(1), shares())) == [Check((slot(0, 0),), ())]
    actions = download.handle(Checked())
    assert isinstance(actions[0], Fail)
    assert (actions[0].error.needed, actions[0].error.found) == (2, 1)
    assert actions[1:] == [Settled()]


def test_no_nodes_at_all_fail() -> None:
    actions = Download(BLOB, 1, [], []).handle(Begin())
    assert isinstance(actions[0], Fail)
    assert actions[0].error.found == 0


def test_a_second_copy_replaces_a_false_one() -> None:
    """Two copies of the same share (pairs, replication by chance): number 0 from node 0 is false."""
    download = Download(BLOB, 1, [slot(0, 0), slot(0, 1)], [node(0), node(1)])
    download.handle(Begin())
    assert download.handle(Received(slot(0, 0))) == [Check((slot(0, 0),), ())]
    assert download.handle(Checked(((slot(0, 0), "x"),)))[1:] == [Fetch(slot(0, 1))]


def test_a_late_share_may_be_raced_by_its_own_copy() -> None:
    download = Download(BLOB, 1, [slot(0, 0), slot(0, 1)], [])
    download.handle(Begin())
    assert download.handle(Late()) == [Fetch(slot(0, 1))]
    download.handle(Received(slot(0, 1)))
    assert download.handle(Received(slot(0, 0))) == []
    assert download.handle(Checked(((slot(0, 1), "x"),))) == [
        Blame(slot(0, 1), "x"),
        Check((slot(0, 0),), ()),
    ]


def test_give_up_withdraws_and_settles_when_all_has_ended() -> None:
    download = begun(2, 2)
    assert download.handle(GiveUp()) == [Withdraw(slot(0, 0)), Withdraw(slot(1, 1))]
    assert download.handle(Received(slot(0, 0))) == []
    assert download.handle(Lost(slot(1, 1))) == [Settled()]
    assert download.handle(GiveUp()) == []


def test_give_up_during_a_check_waits_for_it() -> None:
    download = begun(1, 1)
    download.handle(Received(slot(0, 0)))
    assert download.handle(GiveUp()) == []
    assert download.handle(Checked()) == [Settled()]


def test_duplicates_and_strangers_change_nothing() -> None:
    download = begun(2, 3)
    download.handle(Received(slot(0, 0)))
    for event in (Received(slot(0, 0)), Missing(slot(0, 0)), Lost(slot(0, 0)), Received(slot(7, 7))):
        assert download.handle(event) == []
    assert download.handle(Located(node(2), shares(0))) == []  # nobody asked
    assert download.handle(Checked(((slot(0, 0), "x"),))) == []
    assert download.handle(Begin()) == []
