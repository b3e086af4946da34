"""How log records are written: a line for people, or a JSON object a line for programs (docs/metrics.md)."""

from __future__ import annotations

import datetime as dt
import json
import logging
import sys
from typing import Any, Final, TextIO

from muniment.errors import MunimentError

PLAIN: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_OWN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""What every record has; all else was given as `extra`."""


class JsonLines(logging.Formatter):
    """`time`, `level`, `logger`, `message`, and `fields`: the error told of, what was given as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line without line ends in it."""
        moment = dt.datetime.fromtimestamp(record.created, dt.UTC)
        document: dict[str, Any] = {
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields = {name: value for name, value in vars(record).items() if name not in _OWN}
        if error := _error_of(record):
            fields["error"] = {"code": error.code, **error.facts()}
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        if fields:
            document["fields"] = fields
        return json.dumps(document, default=str)


def _error_of(record: logging.LogRecord) -> MunimentError | None:
    """The error a record tells of, as an argument or with its traceback."""
    told = record.args if isinstance(record.args, tuple) else ()
    raised = record.exc_info[1] if record.exc_info else None
    return next((one for one in (*told, raised) if isinstance(one, MunimentError)), None)


class StandardError(logging.StreamHandler[TextIO]):
    """Looks standard error up at each line: a progress bar puts itself in its place for a while."""

    @property
    def stream(self) -> TextIO:
        return sys.stderr

    @stream.setter
    def stream(self, _: TextIO) -> None:
        pass


def begin(level: str, form: str) -> None:
    """Log from now on what is at least of this level, as `text` or `json`, to standard error."""
    handler = StandardError()
    handler.setFormatter(JsonLines() if form == "json" else logging.Formatter(PLAIN))
    logging.basicConfig(level=level.upper(), handlers=[handler])
