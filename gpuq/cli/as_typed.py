"""A command line that is read and not carried out: what `gpuq submit` and `gpuq edit` would ask for.

The options are declared where those commands have theirs, and read by the same functions, so what is
written here and what is typed in a shell cannot mean two things.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import typer
import typer.main
from typer._click import Command as ClickCommand
from typer._click.exceptions import ClickException

from gpuq.cli import console
from gpuq.cli.app import sentence_of
from gpuq.cli.asking import ask
from gpuq.cli.change import Jobs
from gpuq.cli.commands import EditCommand, WordsCommand, family
from gpuq.cli.declaring import Words, declared
from gpuq.cli.edit import Clear, borrowed, changes_of
from gpuq.cli.foresight import foresee
from gpuq.cli.job_options import describe, with_options_of
from gpuq.cli.many_options import many_at_once
from gpuq.errors import UsageError

NOT_HERE = ("--wait", "-w", "--follow", "-f", "--dry-run", "--json", "--pipeline", "--from")


class Submission(NamedTuple):
    """A job or an array as the client takes it, and what can be seen to go wrong with it."""

    job: dict[str, Any]
    doubts: Sequence[str]


class Edit(NamedTuple):
    refs: Sequence[str]
    changes: dict[str, Any]


@with_options_of(describe, many_at_once)
def _submit(context: typer.Context, words: Words = None, **options: Any) -> Submission:
    job = ask(context, words or [], options)
    foresee(context, job, dry=True)
    return Submission(job, console.take_kept(context))


@with_options_of(describe, many_at_once)
def _check(context: typer.Context, words: Words = None, **options: Any) -> None:
    ask(context, [] if options["shell"] is not None else ["-"], options)


@with_options_of(borrowed)
def _edit(context: typer.Context, jobs: Jobs, clear: Clear = None, **options: Any) -> Edit:
    return Edit(jobs, changes_of(context, options, clear or []))


def read_submit(words: Sequence[str]) -> Submission:
    """Of the words behind `gpuq submit`; files that they name are read. UsageError: what is wrong."""
    submission: Submission = _read("submit", words)
    return submission


def check_options(words: Sequence[str]) -> None:
    """UsageError where these options of `gpuq submit` say something wrong, whatever the command is."""
    _read("check", words)


def read_edit(words: Sequence[str]) -> Edit:
    """Of the words behind `gpuq edit`."""
    edit: Edit = _read("edit", words)
    return edit


def options_of(words: Sequence[str]) -> dict[str, Any]:
    """What options of `gpuq submit` say, by their names and as they were written; those that say
    nothing are not there. UsageError where a word is no option."""
    with _context("submit", words) as context:
        said = dict(context.params)
    behind = said.pop("words") or ()
    with _context("submit", [*words, "--", "--"]) as context:
        has_dashes = context.params["words"] != ("--",)
    if behind or has_dashes:
        other = next(iter(behind), "--")
        raise UsageError(f"{other!r} is no option: the command has a field of its own")
    usual = {"visible": "auto", "stop_to": "all"}
    return {
        name: value
        for name, value in said.items()
        if value not in (None, (), usual.get(name)) and value is not False
    }


def _read(name: str, words: Sequence[str]) -> Any:
    with _context(name, words) as context:
        return context.command.invoke(context)


def _context(name: str, words: Sequence[str]) -> Any:
    try:
        return _command(name).make_context(f"gpuq {_AS[name]}", list(words))
    except ClickException as error:
        option = getattr(error, "option_name", None)
        if name != "edit" and option in NOT_HERE:
            raise UsageError(f"{option} is for the command line: here one job is queued") from None
        raise UsageError(sentence_of(error, [_AS[name], *words])) from None


@cache
def _command(name: str) -> ClickCommand:
    """Without --help, which would be printed."""
    function: Callable[..., Any] = {"submit": _submit, "check": _check, "edit": _edit}[name]
    app = family()
    kind = EditCommand if name == "edit" else WordsCommand
    app.command(cls=kind, add_help_option=False)(declared(function))
    return typer.main.get_command(app)


_AS = {"submit": "submit", "check": "submit", "edit": "edit"}
