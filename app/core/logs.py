"""Log lines as text or JSON, each with the request, job, attempt or operation it is about, and without secrets."""

import json
import logging
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final, Literal, TextIO

Context = dict[str, str | int]
LogFormat = Literal["text", "json"]

_context: ContextVar[Context] = ContextVar("log_context")
SECRETS: Final = (
    (re.compile(r"(\w+://[^\s:/@]*):[^\s@]+@"), r"\1:***@"),  # passwords in addresses of databases and brokers
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]+"), r"\1 ***"),
    (re.compile(r"\b(drtl_[0-9a-f]+)_[\w-]{8,}"), r"\1_***"),  # keys of this service, but for the part that is public
    (re.compile(r"\bwhsec_[\w+/=-]{8,}"), "whsec_***"),  # secrets of webhooks
    (re.compile(r"(?i)\b(v1a?,)[\w+/]{43,}=*"), r"\1***"),  # and what was signed with them
    (
        re.compile(
            r"(?i)(?:\b|(?<=_))(authorization|password|x-api-key|api[_-]key|webhook[_-]key)"
            r"(['\"]?\s*[:=]\s*['\"]?)[^\s'\",}]+"
        ),
        r"\1\2***",
    ),
)


@contextmanager
def about(**facts: str | int | None) -> Iterator[None]:
    """Everything logged in the `with` block is about these: `request_id`, `job_id`, `attempt`, `operation_id`."""
    token = _context.set(context() | {name: value for name, value in facts.items() if value is not None})
    try:
        yield
    finally:
        _context.reset(token)


def context() -> Context:
    """What is being worked on here."""
    return _context.get({})


def request_id() -> str | None:
    """The id of the request that is being answered, or that the work at hand came from, where that is known."""
    found = context().get("request_id")
    return None if found is None else str(found)


def without_secrets(text: str) -> str:
    for pattern, replacement in SECRETS:
        text = pattern.sub(replacement, text)
    return text


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (ISO 8601, UTC), level, logger, message, what it is about, and the traceback."""

    def format(self, record: logging.LogRecord) -> str:
        document: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": without_secrets(record.getMessage()),
            "process": record.process,
            **context(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info and record.exc_info[1] is not None:
            document["traceback"] = without_secrets("".join(traceback.format_exception(*record.exc_info)))
        return json.dumps(document, ensure_ascii=False, default=str)


class TextFormatter(logging.Formatter):
    """A line for people, with what it is about in brackets at its end."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        return without_secrets(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is logging's
        line = super().formatMessage(record)
        facts = " ".join(f"{name}={value}" for name, value in context().items())
        return f"{line} [{facts}]" if facts else line


class StandardError(logging.StreamHandler[TextIO]):
    """Writes to whatever standard error is at the time of writing."""

    def __init__(self, log_format: LogFormat) -> None:
        logging.Handler.__init__(self)
        self.setFormatter(formatter(log_format))

    @property
    def stream(self) -> TextIO:  # type: ignore[override]  # Looked up anew, as logging's own last resort does it.
        return sys.stderr


def formatter(log_format: LogFormat) -> logging.Formatter:
    return JsonFormatter() if log_format == "json" else TextFormatter()


def configure(log_format: LogFormat) -> None:
    """Let every logger of this process, uvicorn's included, write to standard error in this format."""
    root = logging.getLogger()
    root.handlers = [handler for handler in root.handlers if not isinstance(handler, StandardError)]
    root.addHandler(StandardError(log_format))
    root.setLevel(min(root.level or logging.INFO, logging.INFO))
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True
    if log_format == "json":  # Our own line for each request says more, and repeats nothing of what a client wrote.
        logging.getLogger("uvicorn.access").setLevel(logging.WARNING)
    logging.getLogger("botocore").setLevel(logging.WARNING)  # Each client says where it has found its credentials.
    logging.captureWarnings(True)


def reformat(logger: logging.Logger, log_format: LogFormat) -> None:
    """Let the handlers that somebody else (Celery) gave to a logger write in this format."""
    for handler in logger.handlers:
        handler.setFormatter(formatter(log_format))
