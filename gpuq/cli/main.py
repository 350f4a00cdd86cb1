"""The command `gpuq`: the options before the command, and what goes wrong in one line.

Started anew for every question that a person or a script has, so what is imported here is paid for
every time. typer alone is most of it; the rest is loaded by the command that needs it.
"""

import os
import sys
from typing import Annotated

import typer
import typer.main
from typer._click.exceptions import ClickException  # typer brings its own click

import gpuq
from gpuq.cli.commands import ALIASES, COMMANDS, OPTIONS, Commands, family
from gpuq.cli.console import Chosen, say
from gpuq.cli.render import printable
from gpuq.errors import GpuqError, UsageError

INTERRUPTED = 130
# `gpuq` alone is `gpuq status`, so its options are tried there too.
STATUS_OPTIONS = (
    *("-a", "--all", "-m", "--mine", "-u", "--user", "-s", "--state", "--tag", "--since", "--sort"),
    *("--limit", "-o", "--columns", "--no-trunc", "-w", "--watch", "--json"),
)
BEFORE_COMMAND = ("--socket", "--state-dir", "--color")  # which daemon and what screen: gpuq's own
PIPE_CLOSED = 141  # what a shell sees of a program that SIGPIPE ended

app = family(cls=Commands, subcommand_metavar="COMMAND ...", options_metavar=OPTIONS)


@app.callback(invoke_without_command=True)
def gpuq_(
    context: typer.Context,
    socket: Annotated[
        str | None, typer.Option(metavar="PATH", help="Ask the daemon that listens there.")
    ] = None,
    state_dir: Annotated[
        str | None, typer.Option(metavar="DIR", help="Ask the daemon whose state is there.")
    ] = None,
    color: Annotated[
        str,
        typer.Option(
            metavar="WHEN", help="auto, never, or always: as on a terminal, also into a pipe."
        ),
    ] = "auto",
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> int | None:
    """gpuq: the queue for a machine with GPUs.

    Examples:
      gpuq submit -g 2 python train.py     queue a command that gets two GPUs
      gpuq run python eval.py              queue it, follow it, exit as it does
      gpuq                                 what runs and what waits
      gpuq logs -f 184                     follow a job
      gpuq kill 184                        end it
    """
    if color not in ("auto", "always", "never"):
        raise UsageError(f"--color {color}: it is auto, always or never")
    if version:
        say(f"gpuq {gpuq.__version__}")
        raise typer.Exit
    context.obj = Chosen(socket, state_dir, color)
    if context.invoked_subcommand is None:
        from gpuq.cli.jobs import status

        return status(context)
    return None


def main() -> None:
    sys.exit(run(sys.argv[1:]))


def run(words: list[str]) -> int:
    """Carries out one command line and returns the exit code."""
    _write_anything()
    try:
        code = _carry_out(words)
        sys.stdout.flush()
        return code
    except GpuqError as error:
        return _complain(str(error), error.exit_code)
    except ClickException as error:
        return _complain(sentence_of(error, words), UsageError.exit_code)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        return _leave_pipe()
    except OSError as error:
        return _complain(f"{error.filename or 'writing'}: {error.strerror}", GpuqError.exit_code)


def _carry_out(words: list[str]) -> int:
    command = typer.main.get_command(app)
    try:
        with command.make_context("gpuq", words) as context:
            return command.invoke(context) or 0
    except typer.Exit as exit:
        return exit.exit_code


def _write_anything() -> None:
    """No byte of a job's name or command may end in a UnicodeEncodeError."""
    if sys.stdout is None:  # `>&-`
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for as long as we live
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for as long as we live
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def _complain(message: str, code: int) -> int:
    try:
        sys.stdout.flush()
    except OSError:
        _leave_pipe()
    sys.stderr.write(f"gpuq: {printable(' '.join(message.split()))}\n")
    return code


def sentence_of(error: ClickException, words: list[str]) -> str:
    """A usage error of the parser's in our own form."""
    message = " ".join(error.format_message().split()).rstrip(".")
    context = getattr(error, "ctx", None)
    where = context.command_path if context is not None else _command_path(words)
    option = getattr(error, "option_name", None)
    if where == "gpuq" and option in STATUS_OPTIONS:
        return f"{option} belongs to a command. You may mean: gpuq status {option}"
    if where != "gpuq" and option in BEFORE_COMMAND and message.startswith("No such option"):
        command = where.removeprefix("gpuq ")
        return f"{option} stands before the command: gpuq {option} ... {command}"
    return f"{message[:1].lower()}{message[1:]}. See: {where} --help"


def _command_path(words: list[str]) -> str:
    """Whose options were being read: an option without its value does not tell."""
    known = (ALIASES.get(word, word) for word in words)
    return next((f"gpuq {word}" for word in known if word in COMMANDS), "gpuq")


def _leave_pipe() -> int:
    """The reader is gone; neither may Python's own flush at exit complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return PIPE_CLOSED
