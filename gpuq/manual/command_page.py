"""gpuq(1), from the commands themselves."""

from collections.abc import Iterator

import typer.main
from typer._click import Command as ClickCommand
from typer._click import Context

from gpuq import errors
from gpuq.cli.app import app
from gpuq.cli.commands import ALIASES, COMMANDS, panels_of
from gpuq.manual.roff import Page

SUMMARY = "the queue for a machine with GPUs"
OF_JOBS = (
    ("126, 127", "run, wait, submit --wait: the command is no program, or there is none"),
    ("128+n", "they too: signal n ended the job"),
    ("125", "they too: the job ended without a code, cancelled in the queue or lost, say"),
    ("130", "interrupted"),
)
ENVIRONMENT = (
    ("GPUQ_SOCKET", "ask the daemon that listens there, as --socket"),
    ("GPUQ_STATE_DIR", "ask the daemon whose state is there, as --state-dir"),
    ("GPUQ_CONFIG", "the file with the settings of your own daemon"),
    ("GPUQ_AUTOSTART", "0: submit and run start no daemon"),
    ("NO_COLOR", "no colour, whatever the terminal"),
)
FILES = (
    ("/run/gpuq/gpuq.sock", "where the daemon of the whole machine answers"),
    ("~/.local/state/gpuq/gpuq.sock", "where your own does, if there is none of the machine"),
    ("~/.config/gpuq/gpuq.toml", "its settings, see gpuq.toml(5)"),
)


def command_page() -> str:
    """The page, in roff."""
    page = Page("gpuq", 1, SUMMARY)
    top = typer.main.get_command(app)
    with Context(top, info_name="gpuq") as context:
        page.heading("SYNOPSIS")
        page.verbatim([f"gpuq {' '.join(top.collect_usage_pieces(context))}"])
        page.heading("DESCRIPTION")
        page.help(top.help or "")
        _write_options(page, top, context)
        page.heading("COMMANDS")
        for words, command, its_context in _commands(top, context):
            page.subheading(words)
            _write_command(page, command, its_context)
    page.heading("EXIT STATUS")
    page.definitions([("0", "done"), *_exit_codes(), *OF_JOBS])
    page.heading("ENVIRONMENT")
    page.definitions(ENVIRONMENT)
    page.heading("FILES")
    page.definitions(FILES)
    page.heading("SEE ALSO")
    page.paragraph("gpuqd(8), gpuq.toml(5)")
    return page.text


def _commands(top: ClickCommand, context: Context) -> Iterator[tuple[str, ClickCommand, Context]]:
    """Each command with its words, and behind a family its verbs."""
    for name in top.list_commands(context):  # type: ignore[attr-defined]
        command = top.get_command(context, name)  # type: ignore[attr-defined]
        its_context = Context(command, info_name=name, parent=context)
        yield f"gpuq {name}{_also(name)}", command, its_context
        for verb in getattr(command, "commands", {}):
            below = command.commands[verb]
            yield f"gpuq {name} {verb}", below, Context(below, info_name=verb, parent=its_context)


def _also(name: str) -> str:
    others = [alias for alias, meant in ALIASES.items() if meant == name]
    return f" (also {', '.join(others)})" if others else ""


def _write_command(page: Page, command: ClickCommand, context: Context) -> None:
    if command.name in COMMANDS and not command.help:
        page.paragraph(COMMANDS[command.name].summary)
    page.verbatim([f"{context.command_path} {' '.join(command.collect_usage_pieces(context))}"])
    page.help(command.help or "")
    _write_options(page, command, context)


def _write_options(page: Page, command: ClickCommand, context: Context) -> None:
    panels = panels_of(command, context)
    for panel, rows in panels:
        options = [row for row in rows if not row[0].endswith("--help")]
        if options and len(panels) > 1:
            page.paragraph(f"{panel}:")
        page.definitions(options)


def _exit_codes() -> list[tuple[str, str]]:
    """From the tree of errors, which says it best itself."""
    kinds = sorted(errors.BY_CODE.values(), key=lambda kind: kind.exit_code)
    lines = (errors.__doc__ or "").split("\n")
    found = {kind: next(line for line in lines if kind.__name__ in line.split()) for kind in kinds}
    return [
        (str(kind.exit_code), line.split(str(kind.exit_code), 1)[1]) for kind, line in found.items()
    ]
