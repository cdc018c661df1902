"""Loggers whose messages are complete: PAR prints only the message of a record, not its level or its logger."""

from __future__ import annotations

import logging


def logger_of(module: str) -> logging.Logger:
    """The logger of a module of this package. Its messages begin with `pixell-envoy` and the level."""
    logger = logging.getLogger(module)
    # A filter, not a LoggerAdapter: with an adapter, records would name the adapter as the place of the log call.
    logger.addFilter(_name_level)
    return logger


def _name_level(record: logging.LogRecord) -> bool:
    record.msg = f"pixell-envoy {record.levelname}: {record.msg}"
    return True
