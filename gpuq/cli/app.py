"""`gpuq` as Typer reads it: the options before the command, help, and what is wrong with the words.

Loaded for what `gpuq.cli.quick` does not take. Typer is most of what that costs; a command's module is
loaded when it is called.
"""

from typing import Annotated

import typer
import typer.main
from typer._click.exceptions import ClickException  # typer brings its own click

import gpuq
from gpuq.cli.commands import ALIASES, COMMANDS, OPTIONS, Commands, family
from gpuq.cli.console import COLORS, Chosen, say
from gpuq.errors import UsageError

# `gpuq` alone is `gpuq status`, so its options are tried there too.
STATUS_OPTIONS = (
    *("-a", "--all", "-m", "--mine", "-u", "--user", "-s", "--state", "--tag", "--since", "--sort"),
    *("--limit", "-o", "--columns", "--no-trunc", "-w", "--watch", "--json"),
)
BEFORE_COMMAND = ("--socket", "--state-dir", "--color")  # which daemon and what screen: gpuq's own

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
    if color not in COLORS:
        raise UsageError(f"--color {color}: it is auto, always or never")
    if version:
        say(f"gpuq {gpuq.__version__}")
        raise typer.Exit
    context.obj = Chosen(socket, state_dir, color)
    if context.invoked_subcommand is None:
        from gpuq.cli.jobs import status

        return status(context)
    return None


def carry_out(words: list[str]) -> int:
    """The exit code. UsageError: what is wrong with the words, in our own form."""
    command = typer.main.get_command(app)
    try:
        with command.make_context("gpuq", words) as context:
            return command.invoke(context) or 0
    except typer.Exit as exit:
        return exit.exit_code
    except ClickException as error:
        raise UsageError(sentence_of(error, words)) from None


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
