"""This end of things: the terminal that is written to and the daemon that is asked.

The only room of the command line that looks at the environment and at the clock. stdout carries the
answer; what is said beside it goes to stderr.
"""

from __future__ import annotations

import os
import sys

from gpuq.client import Client
from gpuq.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    import typer

    from gpuq.cli.render import Look

_KEPT = "gpuq.kept_notes"
# What TERM says where a terminal, or what takes its place, can do no more than print lines.
LINES_ONLY = ("", "dumb", "unknown")
WIDTH = 100  # where nobody says how wide it is


COLORS = ("auto", "always", "never")


class Chosen:
    """The options before the command."""

    __slots__ = ("color", "socket", "state_dir")

    def __init__(
        self, socket: str | None = None, state_dir: str | None = None, color: str = "auto"
    ) -> None:
        self.socket = socket
        self.state_dir = state_dir
        self.color = color


class Leave(Exception):
    """Ends the command with that exit code; what there is to say was said."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


def connect(context: typer.Context, *, autostart: bool = False) -> Client:
    """`autostart` for what brings work: it starts the user's own daemon where there is none."""
    chosen: Chosen = context.obj
    return Client(
        chosen.socket,
        chosen.state_dir,
        autostart=autostart,
        say=lambda line: note(hint(context, line)),
    )


def hint(context: typer.Context, text: str) -> str:
    """A text that names commands, with the options that tell which daemon is meant, where this command
    was given some. Only for our own words."""
    if not (given := daemon_options(context)):
        return text
    from shlex import join

    return text.replace("gpuq ", f"gpuq {join(given)} ")


def daemon_options(context: typer.Context) -> list[str]:
    """Those before the command that tell which daemon is meant, as they were given."""
    chosen: Chosen = context.obj
    given = {"--socket": chosen.socket, "--state-dir": chosen.state_dir}
    return [word for option, path in given.items() if path for word in (option, path)]


def is_for_a_person(context: typer.Context) -> bool:
    """Whether the answer goes to a terminal, or is to look as if it did."""
    chosen: Chosen = context.obj
    return sys.stdout.isatty() or chosen.color == "always"


def look(context: typer.Context) -> Look:
    import time

    from gpuq.cli.render import Look

    chosen: Chosen = context.obj
    is_terminal = sys.stdout.isatty()
    return Look(
        terminal=is_for_a_person(context),
        colour=_wants_colour(chosen.color, is_terminal),
        unicode=_speaks_unicode(),
        width=_width(),
        user=_user(),
        now=time.time(),
    )


def draws() -> bool:
    """Whether what stands on the output can be drawn over: a terminal that knows how."""
    return sys.stdout.isatty() and os.environ.get("TERM", "") not in LINES_ONLY


def _wants_colour(color: str, is_terminal: bool) -> bool:
    if color != "auto":
        return color == "always"
    return is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _speaks_unicode() -> bool:
    """Python writes UTF-8 under LC_ALL=C too (PEP 540), the terminal may not: ask both."""
    environ = os.environ
    locale = environ.get("LC_ALL") or environ.get("LC_CTYPE") or environ.get("LANG") or "C.UTF-8"
    encoding = sys.stdout.encoding or ""
    return "utf" in encoding.lower() and "utf" in locale.lower()


def _width() -> int:
    """As shutil.get_terminal_size finds it, which brings the archives that shutil can read."""
    said = os.environ.get("COLUMNS", "")
    if said.isdecimal() and int(said) > 0:
        return int(said)
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or WIDTH
    except (ValueError, OSError):
        return WIDTH


def _user() -> str:
    from pwd import getpwuid

    try:
        return getpwuid(os.geteuid()).pw_name
    except KeyError:  # a uid without a name, as in many containers
        return str(os.geteuid())


def say(*lines: str) -> None:
    for line in lines:
        sys.stdout.write(line + "\n")


def draw_over(lines: Sequence[str], *, up: int) -> None:
    """Over the `up` lines drawn before, line by line and in one go, so that nothing flickers."""
    start = f"\x1b[{up}A" if up else ""
    sys.stdout.write(start + "".join(f"\r{line}\x1b[K\n" for line in lines) + "\x1b[J")
    sys.stdout.flush()


def note(line: str) -> None:
    """Beside the answer; like an error in form, one line that begins in lower case."""
    sys.stdout.flush()
    sys.stderr.write(f"gpuq: {line[:1].lower()}{line[1:]}\n")
    sys.stderr.flush()


def keep_note(context: typer.Context, line: str) -> None:
    """For `say_kept`: what is to be known of a job once it was taken, and not where it is refused."""
    context.meta.setdefault(_KEPT, []).append(line)


def say_kept(context: typer.Context) -> None:
    for line in take_kept(context):
        note(line)


def take_kept(context: typer.Context) -> list[str]:
    """For who shows it elsewhere."""
    kept: list[str] = context.meta.pop(_KEPT, [])
    return kept


def say_json(**values: Any) -> None:
    import json

    from gpuq.protocol import SCHEMA

    indent = 2 if sys.stdout.isatty() else None
    say(json.dumps({"schema": SCHEMA, **values}, indent=indent))


def confirm(question: str, *, instead: str) -> bool:
    """Asks a person; where there is none, it is an error that names the option to use instead."""
    if sys.stdin is None or not sys.stdin.isatty():
        raise UsageError(f"{question} Nobody is here to answer: {instead}")
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    answer = sys.stdin.readline()
    if not answer:  # Ctrl-D: what is said next begins a line of its own
        sys.stderr.write("\n")
    return answer.strip().lower() in ("y", "yes")
