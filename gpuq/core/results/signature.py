"""What an attempt ended with, in words that alike ends share: "ValueError: bad shape # in train.py:31".

Numbers, addresses and the folders of paths differ from run to run of one and the same mistake, so they
are folded. What stays is the exception, or else the last line that speaks of an error, or else the
exit code; and where Python told, the line of the user's own code.
"""

import re
from collections.abc import Sequence

from gpuq.core.ends.last_output import FRAME, clean_lines, last_traceback, looks_back
from gpuq.core.model import EndCause, Exit, Outcome
from gpuq.core.states import signal_name

LONGEST = 200
# A program that wrote so many lines after its traceback went on: something else ended it.
FAR = 60
LAST_LINES = 20  # among which a line that speaks of an error is looked for
UNFOLDED = 2 * LONGEST  # signs of a line that are looked at: none of those behind would be kept

_ENDED_BY_GPUQ = {
    EndCause.TIME_LIMIT: "timed out: it reached its time limit",
    EndCause.HEARTBEAT: "timed out: it gave no sign of life",
    EndCause.GPU_MEMORY: "out of memory: it used more of a shared GPU than it asked for",
    EndCause.HOST_MEMORY: "out of memory: it used more of the machine than its --mem",
    EndCause.SHUTDOWN: "lost: the machine was shut down",
    EndCause.LOGOUT: "lost: its user logged out",
}


def error_signature(exit: Exit, outcome: Outcome, *, ending: EndCause | None = None) -> str | None:
    """At most 200 signs on one line; None where it did what was wanted of it: it succeeded, or
    somebody ended it. `ending` is why gpuq ended it, where it did."""
    if outcome in (Outcome.SUCCEEDED, Outcome.CANCELLED, Outcome.SKIPPED):
        return None
    if ending in _ENDED_BY_GPUQ:
        return _ENDED_BY_GPUQ[ending]
    if exit.lost is not None:
        return _clipped(f"lost: {fold(exit.lost)}")
    if exit.stage is not None:
        return _clipped(f"could not start: {exit.stage}: {fold(exit.error or 'no cause is known')}")
    return _from_output(exit.last_output or "") or _from_status(exit, outcome)


def _from_status(exit: Exit, outcome: Outcome) -> str:
    if outcome is Outcome.OUT_OF_MEMORY:
        return "out of memory"
    if exit.signal is not None:
        return f"killed by {signal_name(exit.signal)}"
    return f"exit code {exit.exit_code}"


# ── from what it wrote ──


def _from_output(tail: str) -> str | None:
    lines = clean_lines(tail)
    while lines:
        header, exception = last_traceback(lines)
        if exception == 0 or len(lines) - exception > FAR:
            return _from_last_lines(lines)
        if header == 0 or not looks_back(lines, header, exception):
            return _from_traceback(lines[header:], exception - header)
        before = lines[:header]
        if last_traceback(before)[1] == 0:
            return _from_last_lines(before) or _from_traceback(lines[header:], exception - header)
        lines = before
    return None


def _from_traceback(lines: Sequence[str], exception: int) -> str:
    raised = fold(lines[exception]) if exception < len(lines) else "an exception"
    place = _place(lines[:exception])
    return _clipped(raised, f" in {place}" if place else "")


def _place(lines: Sequence[str]) -> str | None:
    """Of the innermost frame that is the user's own and no library's, as "train.py:31"."""
    frames = [found for line in lines if (found := FRAME.match(line))]
    own = [frame for frame in frames if not _OF_A_LIBRARY.search(frame["file"])]
    if not frames:
        return None
    innermost = (own or frames)[-1]
    name = innermost["file"].rpartition("/")[2]
    return f"{name[:60]}:{innermost['line']}"


def _from_last_lines(lines: Sequence[str]) -> str | None:
    for line in reversed(lines[-LAST_LINES:]):
        if _SPEAKS_OF_ERROR.search(line[:UNFOLDED]):
            return _clipped(fold(_WHEN.sub("", line)))
    return None


_OF_A_LIBRARY = re.compile(r"/(?:site|dist)-packages/|/lib/python\d|^<frozen ")
# "Error", "ValueError", "FAILED", "panicked at"; an "error rate" and an "error=0.31" are none.
_SPEAKS_OF_ERROR = re.compile(
    r"(?i)error\b(?! ?rate\b| ?[=:] ?[-+.\d])|exception|\bfatal\b|\bfail(?:ed|ure)\b|\bpanick?"
    r"|\babort|\bassertion\b|segmentation fault|core dumped|\bcannot\b|\bunable to\b|not found\b"
    r"|no such file|permission denied|^usage:|\bkilled\b"
)
_WHEN = re.compile(r"^[\[(]?(?:\d{4}-\d\d-\d\d[T ])?\d\d:\d\d:\d\d[\d.,Z+:]*[\])]?[\s|:-]*")


# ── what differs from run to run ──


def fold(text: str) -> str:
    """Numbers as #, paths without their folders, white space as one space."""
    text = " ".join(text[:UNFOLDED].split())
    for pattern, told in _FOLDED:
        text = pattern.sub(told, text)
    text = _NUMBER.sub(lambda found: found["kept"] or "#", text)
    return "".join(sign if sign.isprintable() else "?" for sign in text)


_FOLDED = (
    (re.compile(r"\b0x[0-9a-fA-F]+"), "#"),
    (re.compile(r"\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b"), "#"),
    # Hashes and ids: letters and digits mixed.
    (re.compile(r"\b(?=[a-f]*\d)(?=\d*[a-f])[0-9a-f]{7,}\b"), "#"),
    (
        re.compile(r"(?<![\w.])(?:~|\.\.?)?/(?:[^\s/'\"`:,;()<>\[\]{}|=]+/)*(?=[^\s/'\"`:,;()])"),
        "…/",
    ),
    (re.compile(r"\btmp\w{8}\b"), "tmp#"),
    (
        re.compile(
            r"(?i)\b(rank|worker|node|gpu|cuda|layer|step|epoch|job|task|run|trial|seed|pid)\d+\b"
        ),
        r"\1#",
    ),
)
# What tells one mistake from another: the line of a source file, the kernel's number of an error.
_NUMBER = re.compile(
    r"(?P<kept>\.(?:py|c|cc|cpp|cu|cuh|h|hpp|rs|go|js|ts|jl|R|sh|java):\d+(?::\d+)?"
    r"|\b[Ee]rrno[ =:]+\d+)"
    r"|(?<![A-Za-z0-9])[-+]?\d+(?:[.,_]\d+)*(?:[eE][-+]?\d+)?"
)


def _clipped(text: str, behind: str = "") -> str:
    room = LONGEST - len(behind)
    return (text if len(text) <= room else text[: room - 1] + "…") + behind
