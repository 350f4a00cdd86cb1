"""The words of a job's command, read from the wire and checked, and the name that they give the job.

Jobs of one submission may differ in that alone: of all but the first nothing else is read.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from gpuq.core.asked.containers import refusal
from gpuq.core.asked.wire_fields import (
    LONGEST_STRING,
    join,
    read_list,
    read_text,
    split,
    to_bytes,
    to_text,
)
from gpuq.core.model import Request
from gpuq.errors import UsageError

# What execve accepts for argv and environment together on Linux under the usual 8 MiB stack.
MOST_ARGV_BYTES = 2 * 2**20 - 4096


class Command(NamedTuple):
    """What a job has of its own that is otherwise as another one; `argv` is as `join` writes it."""

    argv: bytes
    name: str
    request: Request | None = None  # where another one is known of this command


def read_argv(wire: Mapping[str, Any]) -> tuple[bytes, ...]:
    """The words of a command, of which there is one at least."""
    words = read_list(wire, "argv")
    argv = tuple(to_bytes("argv", word) for word in words)
    if not argv or not argv[0]:
        raise UsageError("there is no command to run")
    if sum(map(len, argv)) > MOST_ARGV_BYTES:
        raise UsageError(f"the command is longer than the {MOST_ARGV_BYTES} bytes that Linux takes")
    if wire.get("script") is None and (why := refusal(words)) is not None:
        raise UsageError(why)
    return argv


def read_name(wire: Mapping[str, Any], argv: Sequence[bytes]) -> str:
    return _said_name(wire) or _name_of(argv)


def read_commands(wire: Mapping[str, Any]) -> tuple[Command, ...]:
    """Those of further jobs: `argvs` are the words of each."""
    said = {"script": wire.get("script")}
    named = _said_name(wire)
    commands = []
    for words in read_list(wire, "argvs"):
        argv = _joined(words)
        if argv is None:
            argv = join(read_argv({"argv": words, **said}))
        commands.append(Command(argv, named or _name_of(split(argv))))
    return tuple(commands)


def _joined(words: Any) -> bytes | None:
    """A command of which it can be seen at once that there is nothing against it: to look at each of
    its words takes three times as long, and there may be ten thousand of them."""
    if not isinstance(words, list) or not words or not words[0]:
        return None
    try:
        argv = "\0".join(words).encode("utf-8", "surrogateescape") + b"\0"
    except (TypeError, UnicodeEncodeError):
        return None
    is_short = len(argv) <= LONGEST_STRING and argv.count(b"\0") == len(words)
    return argv if is_short and refusal(words) is None else None


def _said_name(wire: Mapping[str, Any]) -> str | None:
    return read_text(wire["name"], "name") if wire.get("name") else None


def _name_of(argv: Sequence[bytes]) -> str:
    """That of the program, or of what a python is to run."""
    program = argv[0].rsplit(b"/", 1)[-1]
    if program.startswith(b"python"):
        scripts = (word for word in argv[1:] if not word.startswith(b"-"))
        program = next(scripts, program).rsplit(b"/", 1)[-1]
    return _readable(program)


@lru_cache(maxsize=256)  # what is submitted is mostly what was submitted before
def _readable(program: bytes) -> str:
    readable = "".join(c if c.isprintable() else "?" for c in to_text(program))
    return readable.encode("utf-8", "replace").decode()[:40] or "job"
