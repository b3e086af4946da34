"""Log records as lines for programs."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from tests.unit.cli.support import FakeComposition, muni

from muniment.errors import ShareCorrupt
from muniment.gateways.cli.log_lines import JsonLines

ERROR = ShareCorrupt(blob=b"\x01" * 32, share=3, reason="leaf 7 is damaged")


def line(record: logging.LogRecord) -> dict[str, Any]:
    text = JsonLines().format(record)
    assert "\n" not in text
    document: dict[str, Any] = json.loads(text)
    return document


def record(message: str, *args: object, **more: Any) -> logging.LogRecord:
    return logging.getLogger("muniment.test").makeRecord(
        "muniment.test", logging.WARNING, __file__, 1, message, args, more.pop("exc_info", None), **more
    )


def test_a_record_has_time_level_logger_and_message() -> None:
    one = record("%d shares\nare missing", 7)
    one.created = 1_800_000_000.25
    assert line(one) == {
        "time": "2027-01-15T08:00:00.250Z",
        "level": "warning",
        "logger": "muniment.test",
        "message": "7 shares\nare missing",
    }


def test_an_error_that_is_told_of_comes_with_its_facts() -> None:
    document = line(record("%s: moved to quarantine", ERROR))
    assert document["message"] == f"{ERROR}: moved to quarantine"
    assert document["fields"]["error"] == {
        "code": "share-corrupt",
        "blob": "aeaqcaibaeaq",
        "share": 3,
        "reason": "leaf 7 is damaged",
    }


def test_a_traceback_and_what_is_given_as_extra_are_fields() -> None:
    try:
        raise ERROR
    except ShareCorrupt as error:
        document = line(record("failed", exc_info=(type(error), error, error.__traceback__)))
    assert document["fields"]["error"]["code"] == "share-corrupt"
    assert "test_log_lines.py" in document["fields"]["traceback"]
    assert line(record("with", extra={"volume": "v", "path": Path("/p")}))["fields"] == {
        "volume": "v",
        "path": "/p",
    }


def test_the_option_is_known_and_a_wrong_one_refused() -> None:
    assert muni(FakeComposition(), "--log-format", "json", "version").code == 0
    assert muni(FakeComposition(), "--log-format", "xml", "version").code == 2
