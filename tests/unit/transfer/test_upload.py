"""The upload machine, transition by transition."""

from __future__ import annotations

from muniment.core.placement import Placement, Slot
from muniment.core.upload import (
    Begin,
    Claim,
    ClaimAccepted,
    Fail,
    Finish,
    GiveUp,
    Late,
    Release,
    Send,
    Settled,
    ShareHeld,
    ShareLost,
    ShareRefused,
    ShareWithdrawn,
    Upload,
    UploadAction,
    Withdraw,
)
from muniment.ids import BlobId, NodeId, ShareNumber

BLOB = BlobId(b"b" * 32)


def slot(share: int, node: int) -> Slot:
    return Slot(ShareNumber(share), NodeId(bytes([node]) * 32))


def plan(n: int, nodes: int) -> Placement:
    """Share i at node i (mod nodes); the rest are spares in order."""
    return Placement(
        tuple(slot(i, i % nodes) for i in range(n)),
        tuple(slot(0, node).node for node in range(n, nodes)),
        -(-n // nodes),
    )


def begun(n: int, nodes: int, happy: int) -> Upload:
    upload = Upload(BLOB, plan(n, nodes), happy=happy)
    upload.handle(Begin())
    return upload


def accept_all(upload: Upload, n: int) -> None:
    for i in range(n):
        assert upload.handle(ClaimAccepted(slot(i, i))) == [Send(slot(i, i))]


def kinds(actions: list[UploadAction]) -> list[type]:
    return [type(action) for action in actions]


def test_small_shares_are_sent_without_a_claim_and_asked_for_only_where_a_node_does_not_know_how() -> None:
    upload = Upload(BLOB, plan(2, 3), happy=2, direct=True)
    assert upload.handle(Begin()) == [Send(slot(i, i), direct=True) for i in range(2)]
    assert upload.handle(ShareRefused(slot(0, 0), "full")) == [Send(slot(0, 2), direct=True)]
    assert upload.handle(ShareRefused(slot(1, 1), "none", forgotten=True)) == [Claim(slot(1, 1))]
    assert upload.handle(ClaimAccepted(slot(1, 1))) == [Send(slot(1, 1))]
    assert upload.handle(ShareHeld(slot(0, 2))) == []
    assert kinds(upload.handle(ShareHeld(slot(1, 1)))) == [Finish, Settled]


def test_a_small_share_whose_answer_was_lost_is_released() -> None:
    upload = Upload(BLOB, plan(2, 2), happy=2, direct=True)
    upload.handle(Begin())
    upload.handle(ShareHeld(slot(0, 0)))
    assert upload.handle(ShareLost(slot(1, 1), "gone"))[0] == Release(slot(1, 1))


def test_begin_claims_every_slot() -> None:
    upload = Upload(BLOB, plan(3, 3), happy=3)
    assert upload.handle(Begin()) == [Claim(slot(i, i)) for i in range(3)]
    assert upload.handle(Begin()) == []


def test_a_plain_upload_claims_sends_and_finishes_with_every_place_filled() -> None:
    upload = begun(3, 3, happy=2)
    accept_all(upload, 3)
    assert upload.handle(ShareHeld(slot(0, 0))) == []
    assert upload.handle(ShareHeld(slot(1, 1))) == []  # happy, but the third is in time: wait for it
    assert upload.handle(ShareHeld(slot(2, 2))) == [Finish(3, 0), Settled()]
    assert upload.held == (slot(0, 0), slot(1, 1), slot(2, 2))


def test_a_share_already_held_is_not_sent() -> None:
    upload = begun(2, 2, happy=2)
    assert upload.handle(ShareHeld(slot(0, 0))) == []
    assert upload.handle(ShareHeld(slot(1, 1))) == [Finish(2, 0), Settled()]


def test_a_refusal_moves_the_share_to_the_next_spare() -> None:
    upload = begun(2, 4, happy=2)
    assert upload.handle(ShareRefused(slot(0, 0), "full")) == [Claim(slot(0, 2))]
    assert upload.handle(ShareRefused(slot(0, 2), "full")) == [Claim(slot(0, 3))]


def test_a_lost_answer_releases_before_it_moves_on() -> None:
    upload = begun(2, 3, happy=2)
    assert upload.handle(ShareLost(slot(1, 1), "gone")) == [Release(slot(1, 1)), Claim(slot(1, 2))]


def test_a_node_that_refused_is_no_candidate_for_another_share() -> None:
    upload = begun(2, 3, happy=2)
    assert upload.handle(ShareRefused(slot(0, 0), "full")) == [Claim(slot(0, 2))]
    actions = upload.handle(ShareRefused(slot(0, 2), "full"))
    assert kinds(actions) == [Fail, Withdraw]


def test_a_node_that_forgot_its_reservation_is_asked_once_more() -> None:
    upload = begun(1, 1, happy=1)
    accept_all(upload, 1)
    assert upload.handle(ShareRefused(slot(0, 0), "unknown", forgotten=True)) == [Claim(slot(0, 0))]
    assert upload.handle(ClaimAccepted(slot(0, 0))) == [Send(slot(0, 0))]
    actions = upload.handle(ShareRefused(slot(0, 0), "unknown", forgotten=True))
    assert kinds(actions) == [Fail, Settled]


def test_a_late_share_is_raced_and_the_first_wins() -> None:
    upload = begun(2, 3, happy=2)
    accept_all(upload, 2)
    upload.handle(ShareHeld(slot(0, 0)))
    assert upload.handle(Late()) == [Claim(slot(1, 2))]
    assert upload.handle(ClaimAccepted(slot(1, 2))) == [Send(slot(1, 2))]
    assert upload.handle(ShareHeld(slot(1, 2))) == [Withdraw(slot(1, 1)), Finish(2, 0)]
    assert upload.handle(ShareWithdrawn(slot(1, 1))) == [Release(slot(1, 1)), Settled()]


def test_the_late_one_may_win_the_race() -> None:
    upload = begun(2, 3, happy=2)
    accept_all(upload, 2)
    upload.handle(ShareHeld(slot(0, 0)))
    upload.handle(Late())
    assert upload.handle(ShareHeld(slot(1, 1))) == [Withdraw(slot(1, 2)), Finish(2, 0)]
    assert upload.handle(ClaimAccepted(slot(1, 2))) == [Release(slot(1, 2)), Settled()]


def test_a_late_share_is_raced_once_only() -> None:
    upload = begun(2, 4, happy=2)
    accept_all(upload, 2)
    assert upload.handle(Late()) == [Claim(slot(0, 2)), Claim(slot(1, 3))]
    assert upload.handle(Late()) == []


def test_happy_without_candidates_finishes_in_the_background() -> None:
    upload = begun(3, 3, happy=2)
    accept_all(upload, 3)
    upload.handle(ShareHeld(slot(0, 0)))
    upload.handle(ShareHeld(slot(1, 1)))
    assert upload.handle(Late()) == [Finish(2, 1)]
    assert upload.handle(ShareHeld(slot(2, 2))) == [Settled()]
    assert slot(2, 2) in upload.held


def test_happy_comes_after_late() -> None:
    upload = begun(3, 3, happy=2)
    accept_all(upload, 3)
    assert upload.handle(Late()) == []
    upload.handle(ShareHeld(slot(0, 0)))
    assert upload.handle(ShareHeld(slot(1, 1))) == [Finish(2, 1)]


def test_stragglers_are_withdrawn_and_released_on_give_up() -> None:
    upload = begun(3, 3, happy=2)
    accept_all(upload, 3)
    upload.handle(ShareHeld(slot(0, 0)))
    upload.handle(ShareHeld(slot(1, 1)))
    upload.handle(Late())
    assert upload.handle(GiveUp()) == [Withdraw(slot(2, 2))]
    assert upload.handle(GiveUp()) == []
    assert upload.handle(ShareWithdrawn(slot(2, 2))) == [Release(slot(2, 2)), Settled()]


def test_a_failed_share_without_candidates_finishes_if_happy() -> None:
    upload = begun(3, 3, happy=2)
    accept_all(upload, 3)
    assert upload.handle(ShareRefused(slot(0, 0), "full")) == []
    upload.handle(ShareHeld(slot(1, 1)))
    assert upload.handle(ShareHeld(slot(2, 2))) == [Finish(2, 1), Settled()]


def test_it_fails_as_soon_as_happiness_is_out_of_reach_and_releases_everything() -> None:
    upload = begun(3, 3, happy=3)
    upload.handle(ClaimAccepted(slot(0, 0)))
    actions = upload.handle(ShareRefused(slot(1, 1), "no space"))
    assert kinds(actions) == [Fail, Withdraw, Withdraw]
    fail = actions[0]
    assert isinstance(fail, Fail)
    assert (fail.error.happy, fail.error.placed) == (3, 0)
    assert "no space" in fail.error.reasons[0]
    assert upload.handle(ShareWithdrawn(slot(0, 0))) == [Release(slot(0, 0))]
    assert upload.handle(ClaimAccepted(slot(2, 2))) == [Release(slot(2, 2)), Settled()]


def test_too_few_nodes_fail_before_anything_is_asked() -> None:
    upload = Upload(BLOB, plan(6, 4), happy=5)
    actions = upload.handle(Begin())
    assert kinds(actions) == [Fail, Settled]
    assert isinstance(actions[0], Fail)
    assert "only 4 nodes" in str(actions[0].error)
    assert upload.handle(Begin()) == []


def test_more_shares_than_nodes_count_nodes_not_shares() -> None:
    upload = Upload(BLOB, plan(4, 2), happy=2)
    assert upload.handle(Begin()) == [Claim(slot(i, i % 2)) for i in range(4)]
    for i in range(3):
        assert upload.handle(ShareHeld(slot(i, i % 2))) == []
    assert upload.handle(ShareHeld(slot(3, 1))) == [Finish(2, 0), Settled()]


def test_a_used_node_takes_another_share_only_up_to_its_part() -> None:
    upload = Upload(BLOB, plan(4, 3), happy=2)  # shares 0..3 at nodes 0 1 2 0: at most two each
    upload.handle(Begin())
    assert upload.handle(ShareRefused(slot(2, 2), "full")) == [Claim(slot(2, 1))]


def test_give_up_before_any_answer_leaves_nothing() -> None:
    upload = begun(2, 2, happy=2)
    upload.handle(ClaimAccepted(slot(0, 0)))
    assert upload.handle(GiveUp()) == [Withdraw(slot(0, 0)), Withdraw(slot(1, 1))]
    assert upload.handle(ShareWithdrawn(slot(0, 0))) == [Release(slot(0, 0))]
    assert upload.handle(ShareWithdrawn(slot(1, 1))) == [Settled()]  # never claimed: nothing to release


def test_give_up_before_begin_settles() -> None:
    upload = Upload(BLOB, plan(2, 2), happy=2)
    assert upload.handle(GiveUp()) == [Settled()]
    assert upload.handle(Begin()) == []


def test_duplicates_and_strangers_change_nothing() -> None:
    upload = begun(2, 2, happy=2)
    accept_all(upload, 2)
    assert upload.handle(ClaimAccepted(slot(0, 0))) == []
    upload.handle(ShareHeld(slot(0, 0)))
    for event in (ShareHeld(slot(0, 0)), ShareRefused(slot(0, 0), "x"), ShareLost(slot(0, 0), "x")):
        assert upload.handle(event) == []
    for stranger in (ShareHeld(slot(9, 9)), ClaimAccepted(slot(9, 9)), ShareWithdrawn(slot(9, 9))):
        assert upload.handle(stranger) == []


def test_only_some_reasons_are_told() -> None:
    upload = begun(2, 40, happy=2)
    actions: list[UploadAction] = []
    node = 0
    while not any(isinstance(action, Fail) for action in actions):
        actions = upload.handle(ShareRefused(slot(0, node), "full"))
        node = 2 if node == 0 else node + 1
    fail = next(action for action in actions if isinstance(action, Fail))
    assert len(fail.error.reasons) == 16
