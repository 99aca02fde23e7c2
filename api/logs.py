"""Log lines of a server: JSON objects or text, on stderr."""

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Literal

_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
"""What a terminal may obey instead of showing it; addresses and keys in a line are whatever clients sent."""


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, message, what was given as `extra`, a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        value = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        value |= {key: item for key, item in vars(record).items() if key not in _PLAIN}
        if record.exc_info:
            value["traceback"] = self.formatException(record.exc_info)
        return json.dumps(value, ensure_ascii=False, default=str)


class TextLines(logging.Formatter):
    """time level message key=value ..."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; a traceback follows on lines of its own."""
        more = [f"{key}={item}" for key, item in vars(record).items() if key not in _PLAIN]
        time = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        line = _CONTROL.sub(" ", " ".join([time, record.levelname.lower(), record.getMessage(), *more]))
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def configure(form: Literal["json", "text"], *, verbose: bool) -> None:
    """Send the process's log to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for name in ("httpx", "httpx2", "uvicorn.access"):
        logging.getLogger(name).setLevel(logging.WARNING)
    if verbose:
        for name in ("api", "evaluation", "index", "retrieval", "training"):
            logging.getLogger(name).setLevel(logging.DEBUG)
