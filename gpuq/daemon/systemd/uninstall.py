"""gpuqd uninstall: takes away what install put there, and nothing else. Jobs go on, and what they and
the queue left on disk stays.
"""

import os
from collections.abc import Iterator
from contextlib import suppress

from gpuq import service
from gpuq.config import Config
from gpuq.core.units import count
from gpuq.daemon.systemd.site import Site, ask, ask_to_leave, site_of
from gpuq.daemon.systemd.steps import Deed, Remove, Run, Step, came_from, carry_out, is_ours
from gpuq.errors import DaemonUnreachable, NotPermitted

UNITS = (service.SERVICE, service.SOCKET)
PAGES = ("man1/gpuq.1", "man5/gpuq.toml.5", "man8/gpuqd.8")


def run(settings: Config, *, dry_run: bool) -> int:
    """The command; returns its exit code."""
    site = site_of(settings)
    if site.is_system and not service.is_root():
        raise NotPermitted(
            "only root may uninstall the daemon of the machine: sudo gpuq daemon uninstall --system"
        )
    uninstall(site, dry_run=dry_run)
    return 0


def uninstall(site: Site, *, dry_run: bool) -> None:
    """Twice does no harm."""
    _leave_alone(site)
    steps = list(_steps(site))
    if not steps:
        site.say(f"nothing to do: gpuq daemon install put nothing there ({site.whose})")
        return
    if goes_on := _running_jobs(site):
        site.say(goes_on)
    for step in steps:
        if dry_run:
            site.say(f"would {step.doing}")
        else:
            carry_out(step, site.again("uninstall"))
            site.say(step.done)
    if not dry_run:
        _forget(site)
    for line in _what_is_kept(site):
        site.say(line)


def _leave_alone(site: Site) -> None:
    for name in UNITS:
        path = site.places.unit_file(name)
        if os.path.lexists(path) and not is_ours(path):
            site.say(f"left alone {path}: it is not from gpuq daemon install")


def _steps(site: Site) -> Iterator[Step]:
    ours = [path for path in _files(site) if is_ours(path)]
    units = [name for name in UNITS if site.places.unit_file(name) in ours]
    has_systemd = os.path.isdir(service.BOOTED)
    if units and has_systemd:
        yield _stop(site)
        yield Run((*site.service.command, "disable", *units), "they are not started any more")
    for path in (*_links(site), *ours):
        yield Remove(path)
    if units and has_systemd:
        yield Run((*site.service.command, "daemon-reload"), "systemd forgets the units")


def _stop(site: Site) -> Step:
    def leave() -> int | None:
        """Asked only where it runs: the socket would start one to answer."""
        is_there = site.service.is_active()
        return ask_to_leave(site.socket, for_another=False) if is_there else None

    units = f"{service.SOCKET} and {service.SERVICE}"
    return Deed(
        doing=f"stop {units}", done=f"stopped {units}", deed=lambda: site.service.stop(leave)
    )


def _files(site: Site) -> Iterator[str]:
    """All that may be ours, the units last: they tell which installation the links belong to, should
    we not get to the end."""
    places = site.places
    yield from map(places.completion, ("bash", "zsh", "fish"))
    yield from (os.path.join(places.pages, name) for name in PAGES)
    if site.is_system:
        yield from map(places.unit_file, ("gpuq.sysusers.conf", "gpuq.tmpfiles.conf"))
    yield from map(places.unit_file, reversed(UNITS))


def _links(site: Site) -> Iterator[str]:
    """Those that lead to the commands of the installation that the units are from."""
    commands = came_from(site.places.unit_file(service.SERVICE))
    if commands is None or site.places.commands is None:
        return
    for name in ("gpuq", "gpuqd"):
        path = os.path.join(site.places.commands, name)
        if os.path.islink(path) and os.readlink(path) == os.path.join(commands, name):
            yield path


def _running_jobs(site: Site) -> str | None:
    """Asked from a daemon that runs; the socket alone would start one."""
    if not os.path.isdir(service.BOOTED) or not site.service.is_active():
        return None
    try:
        running = ask(site.socket, "ping")["counts"]["running"]
    except DaemonUnreachable:
        return "the daemon does not answer; jobs that it started go on"
    if not running:
        return None
    return (
        f"{count(running, 'job')} {'runs' if running == 1 else 'run'} and will go on; a daemon "
        "installed again takes them over. To end them first: gpuq kill -s running --yes --wait"
    )


def _forget(site: Site) -> None:
    """That a unit failed once is known to systemd beyond its file, and the folder of the socket stays
    for the service's sake alone."""
    if os.path.isdir(service.BOOTED):
        service.run_tool([*site.service.command, "reset-failed", *UNITS])
    if site.is_system:
        with suppress(OSError):
            os.rmdir(os.path.dirname(site.socket))


def _what_is_kept(site: Site) -> list[str]:
    sudo = "sudo " if site.is_system else ""
    kept = [
        f"kept {site.state_dir}: the queue, logs and outputs of jobs. To remove them for good: "
        f"{sudo}rm -r {site.state_dir}"
    ]
    if os.path.exists(site.config):
        kept.append(f"kept {site.config}: the settings")
    if site.is_system:
        kept.append("kept the group gpuq-admin. To remove it: sudo groupdel gpuq-admin")
    else:
        kept.append("kept lingering, which other services may need. See: loginctl disable-linger")
    return kept
