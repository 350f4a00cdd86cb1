"""The words behind `gpuqd`: options, which are the settings, and what it does in place of serving."""

import argparse
import os
from collections.abc import Callable, Mapping
from typing import Any, cast

import gpuq
from gpuq import config
from gpuq.daemon.check import command as check
from gpuq.daemon.gpus import check_gpus
from gpuq.daemon.systemd import install, uninstall
from gpuq.daemon.upkeep import backup
from gpuq.errors import UsageError

HELP = """\
The daemon of gpuq. A setting is looked for among the flags, in the
environment and in the file with the settings, in this order, and else has its
default. What the file says is in force once it is saved; where that takes a
restart, `gpuq config` says so. SIGHUP has the file read again at once.
SIGTERM and SIGINT end the daemon: jobs go on, and the next one takes them over."""

FORMS_HELP = """\
SIZE is like 24G or 500M, TIME like 90s, 2h30m or 7d, BOOL is true or false.
LIST has commas between, HOURS are like mon-fri 09:00-18:00, sat 10:00-14:00, and RATE is like 5/s.
In the file the names have _ for -, and a text stands in quotes: keep_for = "7d"."""

CHECK_HELP = """\
Hold what gpuq promises against what is there: that the database is whole, no job is lost, none ran
twice without a reason, no GPU was given twice, nothing runs that has ended. It prints a sentence for
each promise that is broken and exits 1, or says that all is well. It changes nothing, and may be asked
beside a daemon that runs or without one."""

BACKUP_HELP = """\
Copy the database, whole and as of one moment, while the daemon lives or without one. Logs and what jobs
have put out are not in it.

To restore it: stop the daemon (gpuq daemon stop), copy FILE over gpuq.db in its state directory, remove
gpuq.db-wal and gpuq.db-shm if they lie there, and start it again (gpuq daemon start)."""

INSTALL_HELP = """\
Make of this installation a service of systemd: for the whole machine (--system, as root) or for you
alone (--user). Without either root installs for the machine and everybody else for themselves. It puts
units, completions and manual pages in place, starts the daemon, and says each thing that it does. Run
again, it repairs what is amiss, and after an upgrade it takes the running daemon over; jobs go on."""

UNINSTALL_HELP = """\
Stop the service, and remove what `gpuqd install` put there. Jobs go on. The queue, logs and settings
stay, and it says where they are."""

Deed = Callable[[config.Config, argparse.Namespace], int]


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gpuqd",
        usage="gpuqd [OPTION ...] [COMMAND ...]",
        description=HELP,
        epilog=FORMS_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"gpuqd {gpuq.__version__}")
    parser.add_argument("--system", action="store_true", help="one daemon for the whole machine")
    parser.add_argument("--only-check", action="store_true", help="look at the settings, and leave")
    parser.add_argument("--ready-fd", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--throwaway", type=int, metavar="FD", help=argparse.SUPPRESS)
    parser.set_defaults(deed=None)
    for title, settings in config.GROUPS.items():
        group = parser.add_argument_group(f"settings, {title}")
        for setting in settings:
            group.add_argument(setting.flag, help=_help(setting), metavar=setting.form)
    deeds = parser.add_subparsers(title="in place of serving", metavar="COMMAND", prog="gpuqd")
    _add_check(deeds)
    _add_backup(deeds)
    _add_install(deeds)
    _add_uninstall(deeds)
    return parser


def _help(setting: config.Setting) -> str:
    default = "" if setting.default in (None, ()) else f" ({setting.show(setting.default)})"
    return f"{setting.help}{default}".replace("%", "%%")


def _add_deed(
    deeds: Any, name: str, deed: Deed, help: str, **texts: Any
) -> argparse.ArgumentParser:
    """A command that may say which daemon it means before its name or after it."""
    plain = argparse.RawDescriptionHelpFormatter
    parser = deeds.add_parser(name, help=help, formatter_class=plain, **texts)
    parser.set_defaults(deed=deed)
    parser.add_argument("--system", action="store_true", default=argparse.SUPPRESS)
    for setting in config.SETTINGS:
        if setting.name in ("config", "state_dir", "socket"):
            options = {"metavar": setting.form, "default": argparse.SUPPRESS}
            parser.add_argument(setting.flag, help=setting.help, **options)
    return cast(argparse.ArgumentParser, parser)


def _add_check(deeds: Any) -> None:
    what = "hold its promises against what is there"
    parser = _add_deed(deeds, "check", _check, what, description=CHECK_HELP)
    parser.add_argument("file", nargs="?", help="only this database, such as a backup")
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")


def _check(settings: config.Config, asked: argparse.Namespace) -> int:
    return check.run(settings.state_dir, settings.socket, file=asked.file, as_json=asked.json)


def _add_backup(deeds: Any) -> None:
    what = "copy the database, while the daemon lives"
    parser = _add_deed(deeds, "backup", _backup, what, description=BACKUP_HELP)
    parser.add_argument("file", help="where the copy goes")
    parser.add_argument(
        "--force", action="store_true", help="replace FILE where it is there already"
    )


def _backup(settings: config.Config, asked: argparse.Namespace) -> int:
    return backup.run(settings.state_dir, asked.file, force=asked.force)


def _add_install(deeds: Any) -> None:
    what = "make a service of it, for the machine or for you"
    parser = _add_deed(deeds, "install", _install, what, description=INSTALL_HELP)
    _add_whose(parser)
    parser.add_argument(
        "--force", action="store_true", help="replace files that are not from gpuqd install"
    )


def _install(settings: config.Config, asked: argparse.Namespace) -> int:
    return install.run(settings, force=asked.force, dry_run=asked.dry_run)


def _add_uninstall(deeds: Any) -> None:
    what = "undo that; the queue and its logs stay"
    parser = _add_deed(deeds, "uninstall", _uninstall, what, description=UNINSTALL_HELP)
    _add_whose(parser)


def _uninstall(settings: config.Config, asked: argparse.Namespace) -> int:
    return uninstall.run(settings, dry_run=asked.dry_run)


def _add_whose(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--user", action="store_true", help="for you alone")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done")


def _is_for_system(asked: argparse.Namespace) -> bool:
    """Who says nothing installs for whom they can."""
    is_own = getattr(asked, "user", None)
    if asked.system and is_own:
        raise UsageError("--system and --user: one of them")
    return bool(asked.system) or (is_own is False and os.geteuid() == 0)


def settings_of(asked: argparse.Namespace, environ: Mapping[str, str]) -> config.Config:
    flags: dict[str, Any] = vars(asked)
    own = "user" if asked.throwaway is None else "throwaway"
    mode = "system" if _is_for_system(asked) else own
    return _checked(config.load(flags, environ, mode=mode))


def read_again(settings: config.Config) -> config.Config:
    """What goes by the GPUs that we have goes on, though their scenario may be in pieces by now."""
    again = settings.read_again()
    return again if again.gpus == settings.gpus else _checked(again)


def _checked(settings: config.Config) -> config.Config:
    check_gpus(settings.gpus)
    return settings
