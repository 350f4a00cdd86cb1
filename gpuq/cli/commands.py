"""Which commands there are, how one is found and loaded, and how its help looks.

A command's module is imported when it is called. Nothing goes by prefix, and a mistyped word is
never taken for a command to queue.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import typer
import typer.main
from typer._click import Command as ClickCommand
from typer._click import Context, HelpFormatter
from typer.core import TyperCommand, TyperGroup

from gpuq.cli.declaring import declared
from gpuq.errors import UsageError


class Entry(NamedTuple):
    """Where a command is: a function, or a Typer of its own for a family with verbs."""

    place: str
    summary: str
    panel: str = "Jobs"
    takes_words: bool = False  # what follows its first word belongs to the job
    kind: str = "Command"


COMMANDS = {
    "submit": Entry("submit:submit", "queue a command", takes_words=True),
    "run": Entry("submit:run", "queue a command, follow it, exit as it does", takes_words=True),
    "spool": Entry("spool:spool", "a folder whose files become jobs"),
    "status": Entry("jobs:status", "what runs and what waits (also st, ls, or nothing)"),
    "top": Entry("top:top", "the screen: GPUs, jobs and logs, and keys that act on them"),
    "history": Entry("results.history:history", "what has ended, the last one first"),
    "group": Entry("results.group:group", "what came of many jobs: counts, the best, a table"),
    "show": Entry("show:show", "all about one job; what a group is"),
    "why": Entry("why:why", "why a job waits or how it ended; what a GPU or a process does"),
    "logs": Entry("logs:logs", "what a job wrote"),
    "report": Entry("report:report", "from inside a job: how far it is, and its values"),
    "output": Entry("results.output:output", "where a job's results are"),
    "stats": Entry("results.stats:stats", "how jobs fared: waits, run times, failures, memory"),
    "errors": Entry("results.errors:errors", "what went wrong, how often, and where"),
    "wait": Entry("kill:wait", "wait until jobs have ended"),
    "kill": Entry("kill:kill", "end jobs (also cancel)"),
    "undo": Entry("change:undo", "take back the cancel of jobs that waited"),
    "hold": Entry("change:hold", "keep jobs that wait from starting"),
    "release": Entry("change:release", "let them go again"),
    "requeue": Entry("change:requeue", "run jobs once more: those that ended, or that run"),
    "edit": Entry("edit:edit", "change what jobs that wait ask for", kind="EditCommand"),
    "priority": Entry(
        "change:priority", "let jobs go before others, or behind them", kind="NumberCommand"
    ),
    "move": Entry("change:move", "put jobs before others of mine"),
    "events": Entry("events:events", "what happened, in order; -f: what happens"),
    "pause": Entry("pause:pause", "let running jobs stand still"),
    "resume": Entry("pause:resume", "let them go on"),
    "notices": Entry("notices:notices", "who was told of what; try a hook (--test)", "Machine"),
    "reserve": Entry("reserve:reserve", "set GPUs aside for a user and a time", "Machine"),
    "queues": Entry("limits:queues", "the named queues, and who may use them", "Machine"),
    "limit": Entry("limits:limit", "how many jobs may run of a user, a tag, a group", "Machine"),
    "usage": Entry(
        "results.usage:usage", "who has had how much of the GPUs, at what cost", "Machine"
    ),
    "metrics": Entry("metrics:metrics", "what monitoring reads, as Prometheus takes it", "Machine"),
    "drain": Entry("pause:drain", "start nothing any more, or go on (--off)", "Machine"),
    "prune": Entry("prune:prune", "remove jobs that have ended, for good"),
    "gpus": Entry("gpus:gpus", "the GPUs and who is on them; drain one, resume it", "Machine"),
    "daemon": Entry("daemon:daemon", "run, start, stop, restart or ask the daemon", "Machine"),
    "config": Entry("daemon:config", "the settings in force and where they come from", "Machine"),
    "ping": Entry("daemon:ping", "does the daemon answer?", "Machine"),
    "doctor": Entry("doctor.command:doctor", "what is wrong here, and what to do", "Machine"),
    "bundle": Entry("bundle.command:bundle", "all for a report, in one file, no secret", "Machine"),
    "demo": Entry("demo:demo", "see it work", "Machine"),
    "completion": Entry("completion:completion", "completion for bash, zsh or fish", "Machine"),
    "__spool": Entry("spool:empty", "", ""),
    "__complete": Entry("completion:complete", "", "", takes_words=True),
}
OPTIONS = "[OPTION ...]"
COMMAND_BEHIND = "gpuq.command_behind"  # where a context keeps the words behind `--`
ALIASES = {"st": "status", "ls": "status", "cancel": "kill"}


def load(name: str) -> ClickCommand:
    entry = COMMANDS[name]
    module, attribute = entry.place.split(":")
    found = getattr(__import__(f"gpuq.cli.{module}", fromlist=[attribute]), attribute)
    if not isinstance(found, typer.Typer):
        found = _alone(found, WordsCommand if entry.takes_words else _KINDS[entry.kind])
    return typer.main.get_command(found)


def _alone(function: Callable[..., Any], kind: type[TyperCommand]) -> typer.Typer:
    app = family()
    app.command(cls=kind)(declared(function))
    return app


def family(**settings: Any) -> typer.Typer:
    return typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
        **settings,
    )


class Command(TyperCommand):
    """A command whose help begins with what it is for and examples, then its options by panel."""

    def collect_usage_pieces(self, ctx: Context) -> list[str]:
        words = [param for param in self.params if param.param_type_name == "argument"]
        return [OPTIONS, *(str(w.metavar) if w.required else f"[{w.metavar}]" for w in words)]

    def format_help(self, ctx: Context, formatter: HelpFormatter) -> None:
        _write_help(self, ctx, formatter)
        _write_panels(self, ctx, formatter)


class WordsCommand(Command):
    allow_interspersed_args = False


class NumberCommand(Command):
    """What looks like an option that it does not have is an argument: `gpuq priority -5 184`."""

    ignore_unknown_options = True


class EditCommand(Command):
    """Its options stand before or behind its arguments, and a command behind `--`."""

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        if "--" in args:
            at = args.index("--")
            args, ctx.meta[COMMAND_BEHIND] = args[:at], args[at + 1 :]
        return super().parse_args(ctx, args)


_KINDS = {"Command": Command, "NumberCommand": NumberCommand, "EditCommand": EditCommand}


class Verbs(TyperGroup):
    """A command with verbs of its own, as `gpuq daemon stop`."""

    def format_help(self, ctx: Context, formatter: HelpFormatter) -> None:
        _write_help(self, ctx, formatter)
        with formatter.section("Commands"):
            rows = [(name, _first_line(self.commands[name])) for name in self.list_commands(ctx)]
            formatter.write_dl(rows)
        _write_panels(self, ctx, formatter)

    def resolve_command(
        self, ctx: Context, args: list[str]
    ) -> tuple[str | None, ClickCommand | None, list[str]]:
        command = self.get_command(ctx, args[0])
        if command is None:
            raise UsageError(_no_such_command(ctx.command_path, args, self.list_commands(ctx)))
        return ALIASES.get(args[0], args[0]), command, args[1:]


class Commands(Verbs):
    """`gpuq` itself: commands are loaded when they are called."""

    def list_commands(self, ctx: Context) -> list[str]:
        return [name for name, entry in COMMANDS.items() if entry.panel]

    def get_command(self, ctx: Context, cmd_name: str) -> ClickCommand | None:
        name = ALIASES.get(cmd_name, cmd_name)
        return load(name) if name in COMMANDS else None

    def format_help(self, ctx: Context, formatter: HelpFormatter) -> None:
        _write_help(self, ctx, formatter)
        for panel in ("Jobs", "Machine"):
            with formatter.section(panel):
                formatter.write_dl(
                    [(name, e.summary) for name, e in COMMANDS.items() if e.panel == panel]
                )
        _write_panels(self, ctx, formatter)


def _no_such_command(path: str, args: list[str], known: list[str]) -> str:
    from difflib import get_close_matches

    from gpuq.cli.render import command_line, printable

    what = f"there is no command {printable(args[0])!r}"
    if near := get_close_matches(args[0], known, n=2):
        return f"{what}; did you mean: {' or '.join(f'{path} {name}' for name in near)}"
    if path == "gpuq":
        return f"{what}. To queue it: gpuq submit {command_line(args)}"
    return f"{what}. See: {path} --help"


def _write_help(command: ClickCommand, ctx: Context, formatter: HelpFormatter) -> None:
    formatter.write((command.help or "").rstrip() + "\n\n")
    formatter.write_usage(ctx.command_path, " ".join(command.collect_usage_pieces(ctx)))


def _write_panels(command: ClickCommand, ctx: Context, formatter: HelpFormatter) -> None:
    for panel, rows in panels_of(command, ctx):
        with formatter.section(panel):
            formatter.write_dl(rows)


def panels_of(command: ClickCommand, ctx: Context) -> list[tuple[str, list[tuple[str, str]]]]:
    """Its options with what they mean, panel by panel."""
    panels: dict[str, list[tuple[str, str]]] = {}
    for param in command.get_params(ctx):
        record = param.get_help_record(ctx) if param.param_type_name == "option" else None
        if record is not None:
            panel = getattr(param, "rich_help_panel", None) or "Options"
            panels.setdefault(panel, []).append(record)
    return sorted(panels.items(), key=lambda item: item[0] == "Options")


def _first_line(command: ClickCommand) -> str:
    sentence = (command.help or "").split(".")[0]
    return sentence[:1].lower() + sentence[1:]
