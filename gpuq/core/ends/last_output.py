"""The last lines that a program wrote, and the last exception among them, as Python prints it."""

import re
from collections.abc import Sequence
from functools import lru_cache

LONGEST_TAIL = 16 * 1024  # signs looked at
LONGEST_LINE = 2000  # signs of each line; the words stand near the beginning

FRAME = re.compile(r'\s*File "(?P<file>[^"]*)", line (?P<line>\d+)')

# Exceptions that only tell that another process ended: what that one said stands above.
_BY_ANOTHER = re.compile(
    r"ChildFailedError|CalledProcessError|ProcessExitedException|BrokenProcessPool"
    r"|Dist(?:Backend|Network|Store)Error|Connection (?:closed|reset) by peer|BrokenPipeError"
    r"|Engine core initialization failed|Engine process failed to start|EngineDeadError"
)
# Tracebacks that end no process: of finalizers, exit functions, threads, tasks nobody awaited.
_BESIDE = re.compile(
    r"Exception ignored|Error in atexit|Exception in thread|Task exception was never retrieved"
)
_CAUSED = "The above exception was the direct cause of the following exception:"

_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b\r\n]*(?:\x07|\x1b\\)?|[@-Z\\^_])")
# "[rank0]: ", "(EngineCore_0 pid=2651) ERROR 05-08 11:47:02 [core.py:1136] ", "  | " of a group. Jobs
# write what they like, and the loop waits meanwhile: there is one way only to match each part.
_PREFIX = re.compile(
    r"(?:\[[a-z]{0,20}\d{1,10}\]: ?|\([^()=]{0,80}pid=\d{1,10}(?:[^()\d][^()]{0,80})?\) ?"
    r"|[A-Z]{1,20} \d\d-\d\d \d\d:\d\d:\d\d \[[\w./]{1,200}:\d{1,10}\] ?| *\| | *\|$)+"
)
_HEADER = "Traceback (most recent call last)"


@lru_cache(maxsize=1)  # what ended a job is asked several times of the same output
def clean_lines(tail: str) -> tuple[str, ...]:
    """The lines of the end of an output without colours and prefixes. Each state of a progress bar is
    one; empty ones are left out."""
    lines = re.split(r"[\r\n]+", _ESCAPE.sub("", tail[-LONGEST_TAIL:]))
    bare = (_bare(line[:LONGEST_LINE]).rstrip() for line in lines)
    return tuple(line for line in bare if line)


def _bare(line: str) -> str:
    prefix = _PREFIX.match(line)
    return line[prefix.end() :] if prefix else line


def last_traceback(lines: Sequence[str]) -> tuple[int, int]:
    """Where its header stands and where its exception; 0 and 0 where there is none."""
    frames = [index for index, line in enumerate(lines) if FRAME.match(line)]
    if not frames:
        return 0, 0
    behind = range(frames[-1] + 1, len(lines))
    exception = next((index for index in behind if not lines[index][0].isspace()), len(lines))
    before = range(frames[-1], -1, -1)
    return next((index for index in before if _HEADER in lines[index]), 0), exception


def looks_back(lines: Sequence[str], header: int, exception: int) -> bool:
    """Whether this traceback leaves it to the lines above it to say why the job ended."""
    introduction = " ".join(lines[max(header - 2, 0) : header])
    if introduction.endswith(_CAUSED) or _BESIDE.search(introduction):
        return True
    return exception < len(lines) and bool(_BY_ANOTHER.search(lines[exception]))
