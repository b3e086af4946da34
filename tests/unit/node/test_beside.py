"""Who may say that no other client of the account was there."""

from __future__ import annotations

from pathlib import Path

from muniment.node.beside import FILE, Beside


def is_alone(one: Beside) -> bool:
    with one.alone() as alone:
        return alone


def test_who_was_alone_from_the_beginning_may_say_so_again_and_again(tmp_path: Path) -> None:
    one = Beside(tmp_path)
    assert is_alone(one)
    assert is_alone(one)
    one.close()
    one.close()
    after = Beside(tmp_path)
    assert is_alone(after)
    after.close()
    assert (tmp_path / FILE).stat().st_size == 2


def test_neither_of_two_is_alone_not_even_when_the_other_has_gone(tmp_path: Path) -> None:
    first = Beside(tmp_path)
    second = Beside(tmp_path)
    assert not is_alone(first)
    assert not is_alone(second)
    first.close()
    assert not is_alone(second)
    second.close()


def test_one_that_came_and_went_meanwhile_counts(tmp_path: Path) -> None:
    first = Beside(tmp_path)
    Beside(tmp_path).close()
    assert not is_alone(first)
    first.close()


def test_one_that_goes_on_from_before_counts(tmp_path: Path) -> None:
    earlier = Beside(tmp_path)
    later = Beside(tmp_path)
    earlier.close()
    assert not is_alone(later)
    later.close()


def test_a_home_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    one = Beside(tmp_path / "missing")
    assert not is_alone(one)
    one.close()
