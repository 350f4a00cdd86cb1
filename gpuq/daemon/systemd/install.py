"""gpuqd install: makes of this installation a service of the machine or of one user. Running it again
repairs what is amiss, and after an upgrade it takes the running daemon over to the new version.
"""

import os
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

from gpuq import paths, service
from gpuq.config import Config
from gpuq.core.units import count
from gpuq.daemon.systemd.faces import Faces, faces_of
from gpuq.daemon.systemd.site import (
    ANSWER_S,
    Site,
    ask_to_leave,
    end_outsider,
    site_of,
    wait_for_answer,
)
from gpuq.daemon.systemd.steps import (
    Link,
    Run,
    Step,
    Write,
    came_from,
    carry_out,
    is_ours,
    marked,
    read,
)
from gpuq.daemon.systemd.trust import Breach, Installation, breaches, find_installation
from gpuq.daemon.systemd.unit_files import system_units, user_units
from gpuq.errors import DaemonUnreachable, GpuqError, NotPermitted

LINGER = "your services go on when you log out"
INTO_OPT = """
  sudo python3 -m venv /opt/gpuq
  sudo /opt/gpuq/bin/pip install gpuqd    (or the folder with its source)
  sudo /opt/gpuq/bin/gpuq daemon install --system"""


def run(settings: Config, *, force: bool, dry_run: bool) -> int:
    """The command; returns its exit code. Nothing is changed before all that can be known beforehand
    speaks for it."""
    site = site_of(settings)
    check_place(site)
    installation = find_installation(sys.executable)
    if site.is_system:
        check_trusted(breaches(installation))
    os.umask(0o022)  # of folders on the way, which others pass
    faces = faces_of(installation)
    Install(site, installation, faces, force=force, dry_run=dry_run).carry_out()
    return 0


def check_place(site: Site) -> None:
    """May we, and is there a systemd?"""
    if site.is_system and not service.is_root():
        raise NotPermitted(
            "only root may install the daemon of the machine: sudo gpuq daemon install --system. "
            "For yourself alone: gpuq daemon install --user"
        )
    if not os.path.isdir(service.BOOTED):
        instead = (
            "Have gpuqd --system started, as root, by what starts services here"
            if site.is_system
            else "Start yours without it: gpuq daemon start"
        )
        raise GpuqError(
            f"nothing is installed: this machine is not run by systemd ({service.BOOTED} is not "
            f"there), and the units are for it. {instead}"
        )


def check_trusted(found: list[Breach]) -> None:
    if not found:
        return
    first, more = found[0], len(found) - 1
    others = f", and {count(more, 'other path')} no better" if more else ""
    raise GpuqError(
        "nothing is installed: what root runs must be root's alone to write, and open for users to "
        f"run; {first.path} {first.why}{others}. Put gpuq where that is so, and install it from there:"
        f"{INTO_OPT}"
    )


class Install:
    """One run of it."""

    def __init__(
        self,
        site: Site,
        installation: Installation,
        faces: Faces,
        *,
        force: bool = False,
        dry_run: bool = False,
    ) -> None:
        self._site = site
        self._installation = installation
        self._faces = faces
        self._force = force
        self._dry_run = dry_run
        self._units = {
            site.places.unit_file(name): f"# {marked(installation.commands)}.\n{text}"
            for name, text in self._unit_texts().items()
        }
        # Of an installation before this one there are links too.
        service_file = site.places.unit_file(service.SERVICE)
        self._commands_before = came_from(service_file) or installation.commands

    def carry_out(self) -> None:
        site, installed = self._site, self._installation
        self._check_foreign()
        whose = "for the whole machine" if site.is_system else f"for {service.own_name()} alone"
        site.say(f"gpuq {installed.version} from {installed.package}, {whose} ({site.whose})")
        if not site.is_system:
            self._let_linger()
        is_new_socket = self._changes(site.places.unit_file(service.SOCKET))
        for step in self._unit_steps():
            self._do(step)
        for step in self._extra_steps():
            self._try(step)
        for step in self._enabling_steps():
            self._do(step)
        if self._dry_run:
            site.say(f"would start {service.SOCKET} and {service.SERVICE}; nothing was changed")
            return
        try:
            self._start(is_new_socket)
            there = wait_for_answer(site.socket, site.service.journal)
        except DaemonUnreachable as error:
            again = site.again("install")
            raise DaemonUnreachable(
                f"{error}. The units are in place; go on with: {again}"
            ) from None
        self._say_what_next(there)

    def _unit_texts(self) -> dict[str, str]:
        python, site = self._installation.python, self._site
        if site.is_system:
            return system_units(python, site.state_dir)
        return user_units(python, site.socket, site.flags)

    def _check_foreign(self) -> None:
        """All of them before any is written."""
        for path in self._units:
            if os.path.lexists(path) and not is_ours(path) and not self._force:
                what = (
                    "masks the unit" if os.path.islink(path) else "is not from gpuq daemon install"
                )
                raise GpuqError(
                    f"nothing is installed: {path} is there and {what}. Move it away, or replace "
                    f"it: {self._site.again('install')} --force"
                )

    def _changes(self, path: str) -> bool:
        return read(path) != self._units[path]

    # ── the steps ──

    def _unit_steps(self) -> Iterator[Step]:
        for path, text in self._units.items():
            yield Write(path, text)
        if self._site.is_system:
            places = self._site.places
            users = places.unit_file("gpuq.sysusers.conf")
            folders = places.unit_file("gpuq.tmpfiles.conf")
            yield Run(("systemd-sysusers", users), "the group gpuq-admin")
            yield Run(
                ("systemd-tmpfiles", "--create", folders), "/run/gpuq, /var/lib/gpuq, /etc/gpuq"
            )

    def _enabling_steps(self) -> Iterator[Step]:
        site = self._site
        yield Run((*site.service.command, "daemon-reload"), "systemd reads the units")
        units = (service.SOCKET, service.SERVICE)
        when = "at boot" if site.is_system else "at boot, and when you log in"
        yield Run((*site.service.command, "enable", *units), f"they are started {when}")

    def _extra_steps(self) -> Iterator[Step]:
        for path, text in self._extras().items():
            if self._may_have(path):
                yield Write(path, text)
        yield from self._links()

    def _extras(self) -> dict[str, str]:
        """With our mark at their ends, since zsh looks for something else in the first line."""
        places, mark = self._site.places, marked(self._installation.commands)
        scripts = {
            places.completion(shell): f"{script}# {mark}.\n"
            for shell, script in self._faces.scripts.items()
        }
        pages = {
            os.path.join(places.pages, name): f'{page}.\\" {mark}.\n'
            for name, page in self._faces.pages.items()
        }
        return scripts | pages

    def _links(self) -> Iterator[Step]:
        """Only where nothing else is: a `gpuq` of somebody else's is not ours to replace."""
        folder, commands = self._site.places.commands, self._installation.commands
        if folder is None or os.path.realpath(folder) == os.path.realpath(commands):
            return
        before = self._commands_before
        for name in ("gpuq", "gpuqd"):
            path, target = os.path.join(folder, name), os.path.join(commands, name)
            is_from_us = os.path.islink(path) and os.readlink(path) in (
                target,
                os.path.join(before, name),
            )
            if is_from_us or self._may_have(path):
                yield Link(path, target)

    def _may_have(self, path: str) -> bool:
        if not os.path.lexists(path) or is_ours(path) or self._force:
            return True
        self._site.say(
            f"left alone {path}: it is not from gpuq daemon install (--force replaces it)"
        )
        return False

    def _do(self, step: Step) -> None:
        if self._dry_run:
            self._site.say(f"would {step.doing}")
        elif isinstance(step, Write) and read(step.path) == step.text:
            self._site.say(f"kept {step.path}, which is as it should be")
        else:
            carry_out(step, self._site.again("install"))
            self._site.say(step.done)

    def _try(self, step: Step) -> None:
        """Of what is pleasant to have; where /usr/local cannot be written, the queue works all the
        same."""
        try:
            self._do(step)
        except GpuqError as error:
            why = str(error).partition(". What was done")[0]
            self._site.say(
                f"{why}; it goes without: the commands are in {self._installation.commands}"
            )

    # ── a user's systemd ──

    def _let_linger(self) -> None:
        """Without it systemd ends whatever it runs for a user, jobs and all, when the last session is
        closed; then a daemon started otherwise does better."""
        name = service.own_name()
        if service.outlives_logout():
            self._site.say(f"kept lingering, by which {LINGER}")
        else:
            step = Run(("loginctl", "--no-ask-password", "enable-linger"), LINGER)
            if self._dry_run:
                self._do(step)
                return
            try:
                step.carry_out()
            except GpuqError as error:
                raise GpuqError(
                    f"nothing is installed: systemd would end your daemon and its jobs when you log "
                    f"out, and it does not let you linger ({error}). An administrator can: sudo "
                    f"loginctl enable-linger {name}. Then again: gpuq daemon install --user. Until "
                    "then: gpuq daemon start"
                ) from None
            self._site.say(step.done)
        self._wait_for_manager()

    def _wait_for_manager(self) -> None:
        """It comes with the first session or with lingering, a moment later."""
        deadline = time.monotonic() + ANSWER_S
        while True:
            ran = service.run_tool([*self._site.service.command, "show", "--property=Version"])
            if ran.returncode == 0:
                return
            if time.monotonic() > deadline:
                raise GpuqError(
                    f"nothing is installed: no systemd runs for you ({service.last_words(ran)}). Log "
                    "in by ssh or at the machine, not by su, and try again; or: gpuq daemon start"
                )
            time.sleep(0.1)

    # ── the daemon ──

    def _start(self, is_new_socket: bool) -> None:
        site = self._site
        if not site.service.is_active():
            if done := end_outsider(site):
                site.say(done)
            site.service.start()
            site.say(f"started {service.SOCKET} and {service.SERVICE}")
            return
        kept, leave = site.service, lambda: ask_to_leave(site.socket, for_another=True)
        if is_new_socket:  # a socket is not made anew below a running service
            kept.stop(leave)
            kept.start()
        else:
            kept.restart(leave)
        site.say(f"restarted {service.SERVICE}; jobs go on")

    def _say_what_next(self, there: Mapping[str, Any]) -> None:
        site = self._site
        gpus = f"GPUs: {there['gpu_backend']}"  # a daemon this young may not have read them yet
        if there["gpus"]:
            gpus = f"{count(there['gpus'], 'GPU')} ({there['gpu_backend']})"
        trouble = f"; {there['gpu_trouble']}" if there["gpu_trouble"] else ""
        site.say(
            f"gpuqd {there['version']} answers at {site.socket} (pid {there['pid']}), {gpus}{trouble}"
        )
        if site.is_system:
            site.say("next: every user of this machine may: gpuq submit python train.py")
            site.say("next: who is to be an admin of the queue: usermod -aG gpuq-admin NAME")
        else:
            site.say("next: gpuq submit python train.py")
            if paths.has_system_daemon():
                site.say(
                    "note: the machine has a daemon too, which gpuq asks first and which has the GPUs; "
                    f"for yours: export GPUQ_STATE_DIR={site.state_dir}"
                )
        site.say(f"next: settings go to {site.config}; see: gpuq config")
