"""gpuqd(8) and gpuq.toml(5), from the daemon's own parser and its table of settings."""

import argparse
from collections.abc import Iterator

from gpuq import config, paths
from gpuq.daemon.command_line import FORMS_HELP, HELP, make_parser
from gpuq.manual.roff import Page

SIGNALS = (
    ("SIGTERM, SIGINT", "leave; jobs go on, and the next daemon takes them over"),
    ("SIGHUP", "read the file with the settings again"),
)
FILES = (
    (paths.SYSTEM_CONFIG, "settings of the daemon of the whole machine, see gpuq.toml(5)"),
    (paths.SYSTEM_SOCKET, "where it answers"),
    (paths.SYSTEM_STATE_DIR, "its state: the database, jobs with their logs, records"),
    ("~/.local/state/gpuq", "the state of a user's own daemon"),
)
PRECEDENCE = """\
A setting is looked for among the flags of gpuqd, in the environment (by a user's own daemon alone) and
in this file, in this order, and else has its default. `gpuq config` shows each with its origin. What
the file says is in force once it is saved; settings marked (restart) take a restart of the daemon,
which jobs outlive. A file with a mistake changes nothing."""
EXAMPLE = """\
gpus = "nvml"
deny_gpus = [7]                        # the one with the display
reserve_idle = 2                       # two stay free for people outside gpuq,
reserve_hours = "mon-fri 09:00-18:00"  # while they are in the office
grace = "30s"
keep_for = "90d\""""


def daemon_page() -> str:
    """gpuqd(8), in roff."""
    page = Page("gpuqd", 8, "the daemon of gpuq")
    parser = make_parser()
    page.heading("SYNOPSIS")
    page.verbatim(["gpuqd [OPTION ...] [COMMAND ...]"])
    page.heading("DESCRIPTION")
    page.help(HELP)
    page.heading("OPTIONS")
    for action in parser._actions:
        if action.option_strings and action.help != argparse.SUPPRESS and not _is_setting(action):
            page.definitions([_option(action)])
    page.paragraph("Every setting of gpuq.toml(5) is an option as well, with - for _:")
    page.definitions((f"{one.flag} {one.form}", one.help) for one in config.SETTINGS)
    page.heading("COMMANDS")
    for name, summary, command in _commands(parser):
        page.subheading(f"gpuqd {name}")
        page.help(command.description or f"{summary[:1].upper()}{summary[1:]}.")
        page.definitions(
            _option(action)
            for action in command._actions
            if action.help not in (None, argparse.SUPPRESS) and not _is_setting(action)
        )
    page.heading("SIGNALS")
    page.definitions(SIGNALS)
    page.heading("FILES")
    page.definitions(FILES)
    page.heading("SEE ALSO")
    page.paragraph("gpuq(1), gpuq.toml(5)")
    return page.text


def settings_page() -> str:
    """gpuq.toml(5), in roff."""
    page = Page("gpuq.toml", 5, "the settings of gpuq")
    page.heading("SYNOPSIS")
    page.verbatim([paths.SYSTEM_CONFIG, "~/.config/gpuq/gpuq.toml"])
    page.heading("DESCRIPTION")
    page.help(PRECEDENCE)
    page.help(FORMS_HELP)
    for title, settings in config.GROUPS.items():
        page.heading(f"SETTINGS: {title}")
        page.definitions(map(_setting, settings))
    page.heading("NAMED QUEUES")
    page.paragraph("Each has a table of its own, as [queues.night], and in it may stand:")
    page.definitions(map(_setting, config.QUEUE_SETTINGS))
    page.heading("EXAMPLE")
    page.verbatim(EXAMPLE.split("\n"))
    page.heading("SEE ALSO")
    page.paragraph("gpuq(1), gpuqd(8)")
    return page.text


def _is_setting(action: argparse.Action) -> bool:
    return bool({setting.flag for setting in config.SETTINGS} & set(action.option_strings))


def _option(action: argparse.Action) -> tuple[str, str]:
    names = ", ".join(action.option_strings) or str(action.dest).upper()
    value = f" {action.metavar}" if action.option_strings and action.metavar else ""
    return f"{names}{value}", str(action.help or "")


def _commands(
    parser: argparse.ArgumentParser,
) -> Iterator[tuple[str, str, argparse.ArgumentParser]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            summaries = {choice.dest: choice.help for choice in action._choices_actions}
            for name, command in action.choices.items():
                yield name, summaries.get(name) or "", command


def _setting(setting: config.Setting) -> tuple[str, str]:
    default = "" if setting.default in (None, ()) else f" Default: {setting.show(setting.default)}."
    restart = " (restart)" if setting.at_start else ""
    return f"{setting.name} = {setting.form}{restart}", f"{setting.help}.{default}"
