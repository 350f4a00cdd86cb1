"""`gpuq daemon`, `config` and `ping`: the daemon itself."""

import os
import sys
import time
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer import Argument, Option

from gpuq import paths, service
from gpuq.cli import by_systemd, console
from gpuq.cli.by_systemd import goes_on, keeper, who_answers
from gpuq.cli.commands import Command, Verbs, WordsCommand, family
from gpuq.cli.render import Column, Look, clock, plain, printable, tabbed, table
from gpuq.client import Client
from gpuq.core.units import count, format_seconds
from gpuq.errors import DaemonUnreachable, GpuqError
from gpuq.locate import Address

GONE_S = 30.0

daemon = family(cls=Verbs, subcommand_metavar="COMMAND", options_metavar="")


@daemon.callback()
def daemon_() -> None:
    """The daemon: it keeps the queue and starts the jobs.

    Examples:
      gpuq daemon status      is it there, since when, with what
      gpuq daemon start       start your own; `submit` and `run` do so by themselves
      gpuq daemon stop        stop it; jobs go on, and the next one takes them over
      gpuq daemon run         run it here, in the foreground
      gpuq daemon install     have systemd keep it, for you or (as root) for the whole machine
    """


@daemon.command(
    "run",
    cls=WordsCommand,
    add_help_option=False,
    context_settings={"ignore_unknown_options": True},
)
def run(
    context: typer.Context,
    words: Annotated[list[str] | None, Argument(metavar="[OPTION ...]")] = None,
) -> None:
    """Run it here, in the foreground: the same as gpuqd."""
    _become_gpuqd([*_chosen_flags(context), *(words or [])])


@daemon.command("check", cls=Command)
def check(
    context: typer.Context,
    file: Annotated[
        str | None, Argument(metavar="FILE", help="Only this database.", show_default=False)
    ] = None,
    json: Annotated[bool, Option("--json", help="Print what was found as JSON.")] = False,
) -> None:
    """Hold what gpuq promises against what is there. Exit 1 where something is broken.

    Examples:
      gpuq daemon check
      gpuq daemon check /backups/gpuq.db    only that file

    It looks at the database, at jobs and their processes, at GPUs and events; a sentence for each
    promise that is broken. It changes nothing, beside a daemon that runs or without one.
    """
    words = ["check", *(["--json"] if json else []), *(["--", file] if file is not None else [])]
    _become_gpuqd(_its_flags(context) + words)


@daemon.command("backup", cls=Command)
def backup(
    context: typer.Context,
    file: Annotated[str, Argument(metavar="FILE", show_default=False)],
    force: Annotated[bool, Option("--force", help="Replace FILE where it is there.")] = False,
) -> None:
    """Copy its database, whole, while it lives. Logs and outputs of jobs are not in it.

    Examples:
      gpuq daemon backup /backups/gpuq.db
      gpuq daemon backup --force /backups/gpuq.db && gpuq daemon check /backups/gpuq.db

    To restore it: stop the daemon (gpuq daemon stop), copy FILE over gpuq.db in its state directory
    (gpuq config names it), remove gpuq.db-wal and gpuq.db-shm if they lie there, and start it again
    (gpuq daemon start).
    """
    _become_gpuqd([*_its_flags(context), "backup", *(["--force"] if force else []), "--", file])


Whose = Annotated[bool, Option("--system", help="The daemon of the whole machine; as root.")]
Own = Annotated[bool, Option("--user", help="Your own.")]
DryRun = Annotated[bool, Option("--dry-run", help="Only say what would be done.")]


@daemon.command("install", cls=Command)
def install(
    context: typer.Context,
    system: Whose = False,
    user: Own = False,
    force: Annotated[
        bool, Option("--force", help="Replace files that are not from gpuq daemon install.")
    ] = False,
    dry_run: DryRun = False,
) -> None:
    """Make a service of systemd of it, for the whole machine or for you, and start it.

    Examples:
      sudo gpuq daemon install --system    one daemon for everybody on this machine
      gpuq daemon install --user           your own, which outlives a logout and a reboot
      gpuq daemon install --dry-run        only say what would be done

    Without either root installs for the machine, everybody else for themselves. After an upgrade run
    it again: it takes the running daemon over to the new version, and jobs go on.
    """
    flags = _whose(system, user, dry_run) + (["--force"] if force else [])
    _become_gpuqd([*_chosen_flags(context), "install", *flags])


@daemon.command("uninstall", cls=Command)
def uninstall(
    context: typer.Context,
    system: Whose = False,
    user: Own = False,
    dry_run: DryRun = False,
) -> None:
    """Stop the service, and remove what install put there. The queue, logs and settings stay.

    Examples:
      sudo gpuq daemon uninstall --system
      gpuq daemon uninstall --user

    Running jobs go on, and a daemon started later takes them over.
    """
    _become_gpuqd([*_chosen_flags(context), "uninstall", *_whose(system, user, dry_run)])


def _whose(system: bool, user: bool, dry_run: bool) -> list[str]:
    given = (("--system", system), ("--user", user), ("--dry-run", dry_run))
    return [flag for flag, is_given in given if is_given]


def _chosen_flags(context: typer.Context) -> list[str]:
    chosen: console.Chosen = context.obj
    given = (("--socket", chosen.socket), ("--state-dir", chosen.state_dir))
    return [word for flag, value in given if value is not None for word in (flag, value)]


def _become_gpuqd(words: Sequence[str]) -> None:
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-P", "-m", "gpuq.daemon.main", *words])


def _its_flags(context: typer.Context) -> list[str]:
    """Where the daemon that is meant keeps its things, whether it runs or not."""
    with console.connect(context) as client:
        address = client.address
        if address.state_dir is not None:
            return ["--state-dir", address.state_dir, "--socket", address.socket]
        if address.socket == paths.SYSTEM_SOCKET:
            return ["--system"]
        there = who_answers(client)
    if there is None:
        where = f"nobody answers at {address.socket}, so its state directory is not known"
        raise DaemonUnreachable(f"{where}. Name it: --state-dir DIR")
    return ["--state-dir", there["state_dir"], "--socket", address.socket]


Gpus = Annotated[
    str | None,
    Option(metavar="GPUS", help="nvml, nvml:0-3, none, sim:4x24G, or scenario:FILE."),
]


@daemon.command("start", cls=Command)
def start(context: typer.Context, gpus: Gpus = None) -> None:
    """Start your own, detached from this terminal; the machine's, or one that is a service, by systemd.

    Examples:
      gpuq daemon start
      gpuq daemon start --gpus sim:4x24G    on simulated GPUs, at later starts too
      gpuq daemon start --gpus scenario:shared-box    on GPUs that others use too

    For good, a setting stands in the config file. See: gpuq config
    """
    with console.connect(context) as client:
        if kept := service.serving(client.address.socket):
            by_systemd.start(kept, client, gpus)
            return
        if there := who_answers(client):
            _check_same(there, gpus or os.environ.get("GPUQ_GPUS"))
            console.say(f"it runs already (pid {there['pid']})")
            return
        if client.address.state_dir is None:
            raise GpuqError(_not_yours(client.address))
        from gpuq.autostart import start_own_daemon

        flags = ("--gpus", gpus) if gpus is not None else ()
        started = start_own_daemon(client.address.state_dir, *flags)
        console.say(console.hint(context, started))
        _say_no_gpus(client)


def _say_no_gpus(client: Client) -> None:
    seen = client.gpus()
    if not seen["gpus"] and (trouble := seen["gpu_trouble"]) is not None:
        to_try = "" if "sim:4x24G" in trouble else "; to try it: --gpus sim:4x24G"
        console.say(f"no GPUs here: {printable(trouble)}{to_try}")


def _check_same(there: dict[str, Any], gpus: str | None) -> None:
    from gpuq.config import whole_gpus

    if gpus is not None and whole_gpus(gpus) != there["gpu_backend"]:
        raise GpuqError(
            f"a daemon (pid {there['pid']}) runs already, with --gpus {there['gpu_backend']}. "
            f"To change that: gpuq daemon restart --gpus {gpus}"
        )


def _not_yours(address: Address) -> str:
    where = f"the daemon at {address.socket} ({address.origin}) is not yours to start"
    if os.path.isdir(service.BOOTED):
        return f"{where}. The machine's: systemctl start gpuqd. Your own: --state-dir DIR"
    return (
        f"{where}: its socket does not say how. gpuq daemon stop ends it (jobs go on); then start it "
        "again as it was started, gpuqd --system say. Your own: --state-dir DIR"
    )


@daemon.command("stop", cls=Command)
def stop(context: typer.Context) -> None:
    """Stop it. Running jobs go on; the next daemon takes them over."""
    with console.connect(context) as client:
        kept = service.serving(client.address.socket)
        if kept is not None and (kept.is_active() or kept.is_active(service.SOCKET)):
            by_systemd.stop(kept, client)
            return
    _stop(context)


def _stop(context: typer.Context, *, restart: bool = False) -> None:
    with console.connect(context) as client:
        running = client.call("ping")["counts"]["running"]
        pid = client.call("stop", restart=restart)["pid"]
    _wait_until_gone(client.address, pid)
    console.say(f"stopped the daemon (pid {pid}){goes_on(running)}")


def _wait_until_gone(address: Address, pid: int) -> None:
    deadline = time.monotonic() + GONE_S
    while os.path.exists(address.socket):
        if time.monotonic() > deadline:
            raise GpuqError(f"the daemon (pid {pid}) has not left after {GONE_S:g} s")
        time.sleep(0.02)
    # Its last steps come after its socket.
    service.wait_until_gone(pid, max(0.0, deadline - time.monotonic()))


@daemon.command("restart", cls=Command)
def restart(context: typer.Context, gpus: Gpus = None) -> None:
    """Stop it and start it anew, as after an upgrade. Running jobs go on.

    It keeps the GPUs that it was started with, unless others are given here.
    """
    with console.connect(context) as client:
        if kept := service.serving(client.address.socket):
            kept.demand_rights("restart")
            _check_settings(*(["--system"] if kept.is_system else _state_dir_flag(client)))
            by_systemd.restart(kept, client, gpus)
            return
        if client.address.state_dir is None:
            raise GpuqError(_not_yours(client.address))
        there = who_answers(client)
        gpus = gpus or (_gpus_given(client) if there else None)
        _check_settings(*_state_dir_flag(client), *(["--gpus", gpus] if gpus else []))
    if there is not None:
        _stop(context, restart=True)
    start(context, gpus)


def _state_dir_flag(client: Client) -> list[str]:
    return ["--state-dir", str(client.address.state_dir)]


def _check_settings(*flags: str) -> None:
    """Before one is stopped it has to be sure that another can be started."""
    import subprocess

    command = [sys.executable, "-P", "-m", "gpuq.daemon.main", *flags, "--only-check"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        why = ran.stderr.strip().removeprefix("gpuqd: ") or f"it left with code {ran.returncode}"
        raise GpuqError(f"nothing was stopped, since another would not start: {why}")


def _gpus_given(client: Client) -> str | None:
    """What a flag or the environment said when it was started; the file is read again anyway."""
    for setting in client.call("config")["settings"]:
        if setting["name"] == "gpus" and setting["origin"] in ("--gpus", "GPUQ_GPUS"):
            return str(setting["value"])
    return None


@daemon.command("status", cls=Command)
def status(
    context: typer.Context,
    json: Annotated[bool, Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Is it there, since when, and with what."""
    with console.connect(context) as client:
        there = client.call("ping", deep=True)
        look, address = console.look(context), client.address
    if json:
        console.say_json(daemon=there)
        return
    lines = [*_in_words(there, look), *_which_one(there, address)]
    console.say(*(plain(line, look) for line in lines))


def _in_words(there: dict[str, Any], look: Look) -> list[str]:
    whose = {"user": "your own", "system": "the machine's", "throwaway": "a throwaway one"}
    counts = there["counts"]
    simulated = "simulated " if there["gpu_backend"].startswith(("sim", "scenario")) else ""
    gpus = count(there["gpus"] or 0, f"{simulated}GPU")
    if there["gpus"] is None and not there["gpu_trouble"]:
        gpus = f"{simulated}GPUs not read yet"
    lines = [
        f"gpuqd {there['version']}, {whose.get(there['mode'], there['mode'])}, pid {there['pid']}, "
        f"since {clock(there['started_at'])} ({format_seconds(there['uptime_s'])})",
        f"{counts['running']} running, {counts['queued']} queued, "
        f"{gpus} ({printable(there['gpu_backend'])})",
        f"state in {printable(there['state_dir'])}, socket {printable(there['socket'])}",
    ]
    if old := _out_of_date(there):
        lines.append(old)
    if drained := there.get("drained"):
        why = printable(drained["reason"])
        lines.append(f"drained by {printable(drained['actor'])}: {why}. End it: gpuq drain --off")
    if there["gpu_trouble"]:
        lines.append(f"no GPUs: {printable(there['gpu_trouble'])}")
    lines += map(printable, there.get("config_notes", []))
    return lines


def _which_one(there: dict[str, Any], address: Address) -> list[str]:
    """Why this daemon was asked, and who would start it again."""
    lines = [f"asked because of: {printable(address.origin)}"]
    is_kept = service.keeps(there["pid"])
    if is_kept:
        lines.append(f"kept by systemd as {service.SERVICE}")
    elif is_kept is False and os.path.isdir(service.BOOTED):
        lines.append("not kept by systemd. To have that: gpuq daemon install")
    return lines


def _out_of_date(there: dict[str, Any]) -> str | None:
    """Jobs keep running through a restart, so nothing speaks against it."""
    known = there.get("installed_version")
    if known not in (None, there["version"]):
        what = f"it runs {there['version']}, and {known} is installed"
    elif there.get("is_stale"):
        what = "its code has changed since it was started"
    else:
        return None
    return f"{what}. Take it over: gpuq daemon restart (jobs go on)"


def ping(context: typer.Context) -> None:
    """Does a daemon answer, which one, and how fast? Exit 4 where none does.

    Examples:
      gpuq ping
      until gpuq ping; do sleep 1; done
    """
    with console.connect(context) as client:
        client.call("ping", deep=True)
        began = time.monotonic()
        there = client.call("ping")
        took_ms = (time.monotonic() - began) * 1000
        address = client.address
    console.say(
        f"gpuqd {there['version']} (pid {there['pid']}) answers in {took_ms:.1f} ms; "
        f"installed is {there.get('installed_version') or 'none any more'}",
        f"socket    {printable(address.socket)} (from {printable(address.origin)})",
        f"database  {printable(there['database'])}",
        f"up        {format_seconds(there['uptime_s'])}, since {clock(there['started_at'])}"
        f"{keeper(there)}",
    )


def config(
    context: typer.Context,
    json: Annotated[bool, Option("--json", help="Print them as JSON.")] = False,
) -> None:
    """The settings in force, each with where it comes from.

    Examples:
      gpuq config
      gpuq config --json
    """
    with console.connect(context) as client:
        settings, notes = _settings(client, context.obj)
    look = console.look(context)
    if json:
        names = ("name", "value", "origin")
        rows = [dict(zip(names, row, strict=True)) for row in settings]
        console.say_json(settings=rows, notes=notes)
        return
    if look.terminal:
        console.say(*_settings_table(settings, look))
    else:
        console.say(*map(tabbed, settings))
    for note in notes:
        console.note(printable(note))


def _settings(
    client: Client, chosen: console.Chosen
) -> tuple[list[tuple[str, str, str]], list[str]]:
    """The daemon's own, and why the file does not say the same; where none runs, those that one
    started now would have."""
    try:
        answer = client.call("config")
        rows = [(row["name"], str(row["value"]), row["origin"]) for row in answer["settings"]]
        return rows, answer.get("notes", [])
    except DaemonUnreachable:
        from gpuq.config import load

        console.note("no daemon runs; these are the settings that one started now would have")
        flags = {"socket": chosen.socket, "state_dir": chosen.state_dir}
        return load(flags, os.environ).settings(), []


def _settings_table(settings: Sequence[tuple[str, str, str]], look: Look) -> list[str]:
    columns = [
        Column("SETTING", lambda row: row[0]),
        Column("VALUE", lambda row: printable(row[1])),
        Column("FROM", lambda row: printable(row[2])),
    ]
    return table(columns, settings, look)
