"""What a job reports of itself, read by its runner. Standard library only.

The file is the job's to write, so nothing in it is believed but for the job itself, and of whatever
size and sense it is, it costs a bounded look. See `gpuq.job` for the lines.
"""

from __future__ import annotations

import os

LOOKED_AT_BYTES = 64 * 1024
LONGEST_WORDS = 300


def told_out_of_memory(report: int) -> str | None:
    """What the job said as it ran out of GPU memory, if that was among the last it reported."""
    if report < 0:
        return None
    try:
        size = os.fstat(report).st_size
        tail = os.pread(report, LOOKED_AT_BYTES, max(size - LOOKED_AT_BYTES, 0))
    except OSError:
        return None
    for line in reversed(tail.splitlines()):
        if (words := _told(line)) is not None:
            return words
    return None


def _told(line: bytes) -> str | None:
    if b"out_of_memory" not in line:
        return None
    try:
        # Few jobs say so, and all runners would be larger for it. Whoever replaces Python under a
        # runner takes it away, and then the job's own output has to say what it ran out of.
        import json

        said = json.loads(line)
    except (ImportError, ValueError, RecursionError):
        return None
    if not isinstance(said, dict) or said.get("event") != "out_of_memory":
        return None
    words = str(said.get("message") or "the job says so")[:LONGEST_WORDS]
    return "".join(c if c.isprintable() else " " for c in words)
