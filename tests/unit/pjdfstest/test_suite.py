"""What `scripts/posix` calls a failure, in files like those of the suite."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.pjdfstest.suite import FileResult, SuiteAbsent, find_suite, run_file, run_suite


async def result_of(folder: Path, script: str) -> FileResult:
    path = folder / "00.t"
    path.write_text(script)
    return await run_file(path, folder, "chmod/00.t")


async def test_a_file_whose_tests_all_pass_is_right(tmp_path: Path) -> None:
    result = await result_of(tmp_path, "echo 1..3; echo ok 1; echo ok 2 - named; echo 'not ok 3 # TODO os'")
    assert result == FileResult("chmod/00.t", 3, [])


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo 1..2; echo ok 1; echo not ok 2 - tried", "not ok 2 - tried"),
        ("echo 1..2; echo ok 1", "1 tests ran, [2] were planned: 1..2 / ok 1"),
        ("echo ok 1", "1 tests ran, [] were planned: ok 1"),
        ("echo 1..1; echo ok 1; exit 3", "exit code 3"),
    ],
)
async def test_a_file_fails_by_what_it_says_leaves_out_or_ends_with(
    tmp_path: Path, script: str, says: str
) -> None:
    assert (await result_of(tmp_path, script)).failures == [says]


async def test_files_run_in_folders_of_their_own_which_go_when_all_is_right(tmp_path: Path) -> None:
    volume, tests = tmp_path / "volume", tmp_path / "suite" / "tests" / "open"
    volume.mkdir()
    tests.mkdir(parents=True)
    (tests / "00.t").write_text("echo 1..1; touch here; echo ok 1")
    (tests / "01.t").write_text("echo 1..1; touch here; echo not ok 1")
    (tests / "02.t").write_text("echo 1..1; touch here; echo ok 1")
    results = [one async for one in run_suite(tmp_path / "suite", volume, ["open/00", "01"], 2)]
    assert {one.name: len(one.failures) for one in results} == {"open/00.t": 0, "open/01.t": 1}
    assert [path.name for path in volume.rglob("*")] == ["t1", "here"]


def test_an_absent_suite_is_told_with_where_it_comes_from(tmp_path: Path) -> None:
    with pytest.raises(SuiteAbsent, match=r"git clone https://github\.com/pjd/pjdfstest"):
        find_suite("", tmp_path, may_clone=False)
    with pytest.raises(SuiteAbsent, match="set PJDFSTEST"):
        find_suite(str(tmp_path), tmp_path, may_clone=False)
