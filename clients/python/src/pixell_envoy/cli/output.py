"""Where the commands write: tables for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TextIO


class Output:
    """`as_json` decides which of the two is written."""

    def __init__(self, stream: TextIO, as_json: bool) -> None:
        self._stream = stream
        self.as_json = as_json

    def document(self, value: Any) -> None:
        """One JSON document, the only one of its command."""
        self.line(json.dumps(value, indent=2))

    def record(self, value: Any) -> None:
        """One JSON document of many, on a line of its own."""
        self.line(json.dumps(value, separators=(",", ":")))

    def table(self, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Columns as wide as their longest cell."""
        texts = [list(head), *[[str(cell) for cell in row] for row in rows]]
        widths = [max(len(row[column]) for row in texts) for column in range(len(head))]
        for row in texts:
            self.line("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())

    def line(self, text: str) -> None:
        # At once, because `watch` is often read by another program.
        print(text, file=self._stream, flush=True)
