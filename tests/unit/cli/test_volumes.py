"""volume and member: what is printed, voted and refused, over real logs and real homes."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from tests.unit.cli.support import LOG_ADDRESS, FakeComposition, muni
from tests.unit.cli.volume_support import Person, serve_log, two


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeComposition:
    serve_log(tmp_path / "log", monkeypatch)
    return FakeComposition()


@pytest.fixture
def anna(world: FakeComposition, tmp_path: Path) -> Person:
    return Person(world, tmp_path, "anna")


# --- volumes


def test_a_volume_on_this_machine_says_what_that_means(anna: Person) -> None:
    made = anna.muni("volume", "create", "books")
    assert made.code == 0
    assert "on this machine only" in made.err
    listed = anna.muni("volume", "list", "--json").json["volumes"]
    assert listed == [{"volume": made.text.strip(), "name": "books", "log": "local"}]
    for words in (["member", "invite", "books"], ["volume", "cap", "books", "--right", "read"]):
        refused = anna.muni(*words)
        assert refused.code == 2
        assert "its log is on this machine only" in refused.err


def test_nobody_has_a_volume_without_an_identity(world: FakeComposition, tmp_path: Path) -> None:
    world.home = tmp_path / "home"
    done = muni(world, "volume", "create", "books")
    assert done.code == 6
    assert "muni identity new" in done.err
    none = muni(world, "volume", "list")
    assert (none.code, none.text) == (0, "")
    assert "volume create" in none.err


@pytest.mark.parametrize("name", ["a:b", "a/b", "@a", "-", "", "a\nb", "x" * 65])
def test_names_that_a_command_line_could_not_use_are_refused(anna: Person, name: str) -> None:
    done = anna.muni("volume", "create", "--log", LOG_ADDRESS, "--", name)
    assert done.code == 2
    assert anna.muni("volume", "list", "--json").json == {"volumes": []}


def test_a_name_that_is_taken_founds_nothing(anna: Person, tmp_path: Path) -> None:
    anna.create()
    done = anna.muni("volume", "create", "books", "--log", LOG_ADDRESS)
    assert done.code == 2
    assert "another volume is called 'books'" in done.err
    assert len(list((tmp_path / "log" / "logs").glob("*.log"))) == 1


def test_the_policy_is_the_one_that_was_asked_for(anna: Person) -> None:
    anna.create("--quorum", "all", "--coding", "2/3", "--chunk", "64KiB", "--vote-days", "2")
    told = anna.muni("volume", "info", "books", "--json").json["policy"]
    assert told == {
        "quorum": "all", "vote_lifetime_s": 172800, "coding": "2/3", "happy": 3, "chunk_bytes": 65536
    }  # fmt: skip
    assert anna.muni("member", "policy", "books", "--json").json == {"policy": told}
    text = anna.muni("member", "policy", "books").text
    assert "all of the owners; votes count 2 days" in text
    assert "2/3, stored on 3 nodes or more, chunks of 64 KiB" in text


@pytest.mark.parametrize(
    "options", [["--happy", "1"], ["--coding", "x"], ["--chunk", "1"], ["--coding", "9/3"]]
)
def test_a_policy_that_cannot_work_is_refused(anna: Person, options: list[str]) -> None:
    done = anna.muni("volume", "create", "books", *options)
    assert done.code == 2
    assert anna.muni("volume", "list", "--json").json == {"volumes": []}


def test_info_tells_how_far_the_log_was_followed(world: FakeComposition, tmp_path: Path) -> None:
    anna, bert = two(world, tmp_path, "writer")
    hers, his = (one.muni("volume", "info", "books", "--json").json for one in (anna, bert))
    assert (hers["role"], his["role"], his["members"], his["entries"]) == ("owner", "writer", 2, 3)
    assert (hers["state_hash"], hers["checkpoint"]) == (his["state_hash"], his["checkpoint"])
    text = bert.muni("volume", "info", hers["volume"][:8]).text  # by the beginning of its id
    assert f"{bert.id}, writer, with the right to write" in text
    assert his["checkpoint"].split("\n")[2] in text


@pytest.mark.parametrize(("right", "code"), [("write", 0), ("read", 2), ("verify", 2)])
def test_a_capability_recovers_a_volume_and_grants_no_more(
    world: FakeComposition, anna: Person, tmp_path: Path, right: str, code: int
) -> None:
    anna.create()
    printed = anna.muni("volume", "cap", "books", "--right", right)
    cap = printed.text.strip()
    assert cap.startswith(f"mun:volume:{right}:")
    assert ("this is your identity" in printed.err) == (right == "write")
    world.home = tmp_path / "new"
    done = muni(world, "volume", "join", "-", "--json", stdin=cap)
    assert done.json["right"] == right
    assert done.json["name"] == "books"
    told = muni(world, "volume", "info", "books", "--json").json
    assert (told["member"], told["role"], told["right"]) == (anna.id, "owner", right)
    assert muni(world, "member", "rotate", "books").code == code
    (secret,) = world.home.glob("volumes/*/secret")
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert stat.S_IMODE(world.home.stat().st_mode) == 0o700
    assert muni(world, "volume", "cap", "books", "--right", right).text.strip() == cap
    assert muni(world, "volume", "cap", "books", "--right", "write").code == code


def test_a_secret_that_others_can_read_is_not_used(
    world: FakeComposition, anna: Person, tmp_path: Path
) -> None:
    anna.create()
    cap = anna.muni("volume", "cap", "books", "--right", "read").text
    world.home = tmp_path / "new"
    assert muni(world, "volume", "join", "-", stdin=cap).code == 0
    (secret,) = world.home.glob("volumes/*/secret")
    secret.chmod(0o640)
    done = muni(world, "volume", "info", "books")
    assert done.code == 6
    assert "readable by others" in done.err


def test_a_weaker_capability_does_not_outlive_an_invitation(world: FakeComposition, tmp_path: Path) -> None:
    anna, bert = Person(world, tmp_path, "anna"), Person(world, tmp_path, "bert")
    anna.create()
    cap = anna.muni("volume", "cap", "books", "--right", "read").text.strip()
    assert bert.muni("volume", "join", cap).code == 0
    bert.join(anna)
    assert anna.muni("member", "accept", "books", "bert").code == 0
    told = bert.muni("volume", "info", "books", "--json").json
    assert (told["member"], told["right"], told["role"]) == (bert.id, "write", "writer")


def test_what_is_no_capability_or_leads_nowhere_is_not_remembered(anna: Person, tmp_path: Path) -> None:
    assert anna.muni("volume", "join", "mun:volume:invite:abc").code == 2
    anna.create()
    invitation = anna.muni("member", "invite", "books").text.strip()
    for log in (tmp_path / "log" / "logs").iterdir():
        log.unlink()
    bert = Person(anna.world, tmp_path, "bert")
    done = bert.muni("volume", "join", invitation)
    assert done.code == 2
    assert bert.muni("volume", "list", "--json").json == {"volumes": []}
    assert not list((bert.home / "volumes").iterdir())


def test_joining_again_asks_nothing_again(world: FakeComposition, tmp_path: Path) -> None:
    anna, bert = Person(world, tmp_path, "anna"), Person(world, tmp_path, "bert")
    anna.create()
    bert.join(anna)
    bert.join(anna)
    assert len(anna.muni("member", "list", "books", "--json").json["joins"]) == 1
    assert anna.muni("member", "accept", "books", "bert").code == 0
    bert.join(anna)
    assert anna.muni("volume", "info", "books", "--json").json["entries"] == 3


def test_an_exported_identity_is_a_member_elsewhere(
    world: FakeComposition, anna: Person, tmp_path: Path
) -> None:
    anna.create()
    assert anna.muni("identity", "export", "--output", tmp_path / "seed").code == 0
    invitation = anna.muni("member", "invite", "books").text.strip()
    world.home = tmp_path / "other"
    assert muni(world, "identity", "new", "--unlocked", "--seed-file", tmp_path / "seed").code == 0
    assert muni(world, "volume", "join", invitation, "--own-name", "anna").code == 0
    assert muni(world, "mkdir", "books:/x").code == 0  # nobody had to accept
    assert anna.muni("ls", "books:/").text == "x\n"


# --- members


def test_the_list_shows_members_joins_and_votes(world: FakeComposition, tmp_path: Path) -> None:
    anna, bert = two(world, tmp_path)
    carl = Person(world, tmp_path, "carl")
    carl.join(anna, "reader")
    assert anna.muni("member", "accept", "books", "carl").lines == [
        "voted: 1 of 2 needed, 1 vote of the 2 owners still missing"
    ]
    assert anna.muni("member", "policy", "books", "--quorum", "one").code == 0
    assert bert.muni("member", "kick", "books", "anna", "-y").code == 0
    text = anna.muni("member", "list", "books").text
    assert f"{bert.id}  owner   bert" in text
    assert f"{carl.id}  reader  carl  waits" in text
    assert f"vote: accept carl ({carl.id[:12]}): 1 of 2 needed, by anna" in text
    assert f"vote: kick anna ({anna.id[:12]}): 1 of 2 needed, by bert" in text
    assert "vote: policy quorum one" in text
    told = anna.muni("member", "list", "books", "--json").json
    assert (told["owners"], told["needed_votes"]) == (2, 2)
    assert [vote["on"] for vote in told["votes"]] == ["accept", "policy", "kick"]


def test_votes_are_counted_until_they_are_enough(world: FakeComposition, tmp_path: Path) -> None:
    anna, bert = two(world, tmp_path)
    carl = Person(world, tmp_path, "carl")
    carl.join(anna)
    first = anna.muni("member", "accept", "books", carl.id[:6], "--json").json
    assert (first["done"], first["missing_votes"]) == (False, 1)
    assert anna.muni("member", "accept", "books", "carl").code == 2  # has voted
    last = bert.muni("member", "accept", "books", "carl", "--json").json
    assert last == {
        "member": carl.id, "name": "carl", "role": "writer", "done": True, "missing_votes": 0
    }  # fmt: skip
    assert anna.muni("member", "kick", "books", "carl", "-y", "--json").json["missing_votes"] == 1
    done = bert.muni("member", "kick", "books", "carl", "-y")
    assert done.text == f"carl ({carl.id}) is removed; epoch 1 has new keys\n"
    refused = carl.muni("member", "rotate", "books")
    assert refused.code == 2
    assert "is not a member of this volume" in refused.err
    assert anna.muni("member", "policy", "books", "--quorum", "one", "--json").json["done"] is False
    assert bert.muni("member", "policy", "books", "--quorum", "one", "--json").json["done"] is True


def test_who_waits_sees_and_writes_nothing(world: FakeComposition, tmp_path: Path) -> None:
    anna, bert = Person(world, tmp_path, "anna"), Person(world, tmp_path, "bert")
    anna.create()
    assert anna.muni("mkdir", "books:/of-anna").code == 0
    bert.join(anna)
    early = bert.muni("mkdir", "books:/too-early")
    assert (early.code, "is not a member of this volume" in early.err) == (2, True)
    assert bert.muni("ls", "books:/").text == ""
    assert anna.muni("member", "accept", "books", "bert").code == 0
    assert bert.muni("ls", "books:/").text == "of-anna\n"


def test_a_writer_removes_nobody(world: FakeComposition, tmp_path: Path) -> None:
    _, bert = two(world, tmp_path, "writer")
    refused = bert.muni("member", "kick", "books", "anna", "-y")
    assert (refused.code, "writer" in refused.err) == (2, True)


def test_a_join_is_accepted_for_the_role_that_was_looked_at(world: FakeComposition, tmp_path: Path) -> None:
    anna, bert = Person(world, tmp_path, "anna"), Person(world, tmp_path, "bert")
    anna.create()
    bert.join(anna, "owner")
    done = anna.muni("member", "accept", "books", "bert", "--role", "reader")
    assert done.code == 2
    assert "the join asks for the role owner" in done.err


def test_who_asks_may_take_it_back_and_ask_for_more_later(world: FakeComposition, tmp_path: Path) -> None:
    anna, bert = two(world, tmp_path, "reader")
    assert bert.muni("member", "rotate", "books").code == 2
    assert bert.muni("member", "join", "books", "--role", "owner", "--own-name", "bert").code == 0
    assert bert.muni("member", "join", "books", "--role", "reader").code == 2
    assert anna.muni("member", "accept", "books", "bert").code == 0
    assert bert.muni("member", "rotate", "books", "--json").json == {"epoch": 1}
    assert bert.muni("member", "leave", "books", "-y", "--json").json == {"member": bert.id, "left": True}
    assert anna.muni("volume", "info", "books", "--json").json["rotation_due"] is True


def test_nobody_is_removed_unasked(world: FakeComposition, tmp_path: Path) -> None:
    anna, _ = two(world, tmp_path)
    for words in (["kick", "books", "bert"], ["leave", "books"]):
        done = anna.muni("member", *words)
        assert done.code == 2
        assert "say so with -y" in done.err
    assert len(anna.muni("member", "list", "books", "--json").json["members"]) == 2


def test_a_name_that_pretends_to_be_an_id_is_ambiguous(world: FakeComposition, tmp_path: Path) -> None:
    anna, bert = two(world, tmp_path)
    liar = Person(world, tmp_path, "liar")
    liar.name = bert.id[:8]
    liar.join(anna)
    for one in (anna, bert):
        assert one.muni("member", "accept", "books", liar.id).code == 0
    done = anna.muni("member", "kick", "books", bert.id[:8], "-y")
    assert done.code == 2
    assert liar.id in done.err
    assert bert.id in done.err
    assert anna.muni("member", "kick", "books", liar.id, "-y").code == 0
    nobody = anna.muni("member", "kick", "books", "zed", "-y")
    assert nobody.code == 2
    assert "nobody called 'zed' is a member" in nobody.err
