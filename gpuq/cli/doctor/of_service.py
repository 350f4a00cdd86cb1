"""Looks at systemd: is the daemon a service, does it come back after a reboot, outlive a logout?"""

import os
from collections.abc import Iterator

from gpuq import service
from gpuq.cli.doctor.finding import Finding, failure, ok, warning
from gpuq.cli.doctor.scene import Scene
from gpuq.service import Service

SHOW_S = 1.5
SHOWN = "LoadState,ActiveState,SubState,UnitFileState,Result,NRestarts,NeedDaemonReload"


def units(scene: Scene) -> Iterator[Finding]:
    """Its units: installed, enabled, active, and as they were loaded."""
    if not os.path.isdir(service.BOOTED):
        yield ok("systemd does not run this machine: the daemon is no service")
        return
    kept = service.serving(scene.address.socket)
    if kept is None:
        yield ok("no unit of systemd serves this socket. To have one: gpuq daemon install")
        return
    for unit in (service.SOCKET, service.SERVICE):
        yield from _unit(kept, unit)


def _unit(kept: Service, unit: str) -> Iterator[Finding]:
    words = [*kept.command, "show", unit, "-p", SHOWN]
    ran = service.run_tool(words, timeout_s=SHOW_S)
    state = dict(line.partition("=")[::2] for line in ran.stdout.splitlines())
    if ran.returncode != 0 or "LoadState" not in state:
        what = f"systemd does not tell of {unit}: {service.last_words(ran)}"
        yield warning(what, f"{' '.join(kept.command)} status {unit}")
        return
    yield _judged(kept, unit, state)
    if state.get("NeedDaemonReload") == "yes":
        what = f"{unit} was changed on disk since it was loaded"
        yield warning(what, f"{_as_root(kept)}{' '.join(kept.command)} daemon-reload")
    if state.get("NRestarts", "0") not in ("0", ""):
        what = f"systemd has started {unit} again {state['NRestarts']} times"
        yield warning(what, kept.journal)


def _judged(kept: Service, unit: str, state: dict[str, str]) -> Finding:
    tool = _as_root(kept) + " ".join(kept.command)
    active, enabled = state.get("ActiveState", ""), state.get("UnitFileState", "")
    if state["LoadState"] != "loaded":
        return failure(f"{unit} is {state['LoadState']}", f"{_as_root(kept)}gpuq daemon install")
    if active == "failed":
        return failure(f"{unit} failed: {state.get('Result') or 'no reason told'}", kept.journal)
    if enabled not in ("enabled", "static", "linked", "generated", "enabled-runtime"):
        what = f"{unit} is {active} and {enabled or 'not enabled'}: no daemon after a reboot"
        return warning(what, f"{tool} enable {unit}")
    if active not in ("active", "activating", "reloading") and unit == service.SOCKET:
        return warning(f"{unit} is enabled and {active}", f"{tool} start {unit}")
    return ok(f"{unit} is {enabled} and {active}")


def _as_root(kept: Service) -> str:
    return "sudo " if kept.is_system and not service.is_root() else ""


def logout(scene: Scene) -> Iterator[Finding]:
    """Whether a daemon of one's own and its jobs outlive the last session."""
    there = scene.told().ping
    if there is None or there["mode"] != "user":
        return
    if service.is_root() or not os.path.isdir(service.BOOTED):
        return
    if service.outlives_logout():
        yield ok("your daemon and its jobs outlive a logout: you linger")
    elif service.keeps(there["pid"]) or service.logout_ends_all():
        what = "systemd ends your daemon and its jobs when you log out: you do not linger"
        yield warning(what, "loginctl enable-linger")
    else:
        yield ok("your daemon and its jobs outlive a logout")
