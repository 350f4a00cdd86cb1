"""All the looks, in the order in which they are told; each is made in a thread, all at once."""

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from gpuq.cli.doctor import (
    of_daemon,
    of_gpus,
    of_home,
    of_jobs,
    of_machine,
    of_service,
    of_state,
    of_torch,
)
from gpuq.cli.doctor.bounded import Look
from gpuq.cli.doctor.finding import Finding, warning
from gpuq.cli.doctor.scene import Scene
from gpuq.client import Client

LIMIT_S, LIMIT_DEEP_S = 2.7, 660.0

Check = Callable[[Scene], Iterator[Finding]]
CHECKS: Mapping[str, Check] = {
    "python": of_machine.python,
    "version": of_daemon.version,
    "daemon": of_daemon.daemon,
    "socket": of_daemon.socket_file,
    "units": of_service.units,
    "logout": of_service.logout,
    "driver": of_gpus.driver,
    "nvml": of_gpus.library,
    "gpus": of_gpus.gpus,
    "torch": of_torch.torch,
    "bounds": of_gpus.bounds,
    "jobs": of_jobs.jobs,
    "state": of_state.state_dir,
    "disk": of_state.disk,
    "database": of_state.database,
    "kept": of_jobs.kept,
    "settings": of_daemon.settings,
    "kernel": of_machine.kernel,
    "cgroups": of_machine.cgroups,
    "clock": of_machine.clock,
    "limits": of_machine.limits,
    "memory": of_machine.memory,
    "tmp": of_machine.scratch,
    "shm": of_machine.shared_memory,
    "home": of_home.home,
    "directories": of_home.directories,
}
# Where a look hangs, what a person could ask next.
NEXT = {
    "state": "Does its disk answer? df -h; dmesg | tail",
    "disk": "Does its disk answer? df -h; dmesg | tail",
    "database": "Does its disk answer? df -h; dmesg | tail",
    "home": "Does the server of the home answer? mount | grep nfs",
    "directories": "Does the server of the home answer? mount | grep nfs",
    "units": "Does systemd answer? systemctl status gpuqd",
}


def look_over(
    client: Client,
    environ: Mapping[str, str],
    *,
    deep: bool = False,
    root: str = "/",
    checks: Mapping[str, Check] = CHECKS,
) -> list[tuple[str, Finding]]:
    """What was found, each with the name of its check. Takes some 3 s at the most, but with `deep`: all
    of the database is read then, and everybody is given more time."""
    scene = Scene(client, environ, deep=deep, root=root)
    until = time.monotonic() + (LIMIT_DEEP_S if deep else LIMIT_S)
    looks = {name: Look(partial(_all_of, check, scene)) for name, check in checks.items()}
    found = [
        (name, finding)
        for name, look in looks.items()
        for finding in _found(name, look, until - time.monotonic())
    ]
    scene.told()  # until then the client is that thread's
    return found


def _all_of(check: Check, scene: Scene) -> list[Finding]:
    return list(check(scene))


def _found(name: str, look: Look[list[Finding]], within_s: float) -> list[Finding]:
    if not look.is_over(within_s):
        remedy = NEXT.get(name, "Look again: gpuq doctor --deep")
        return [warning(f"the look at {name} did not end in its time", remedy)]
    if look.fault is not None:
        what = f"the look at {name} failed: {look.fault or type(look.fault).__name__}"
        return [warning(what, "Report it with what this writes: gpuq bundle")]
    return look.found or []


def as_json(found: list[tuple[str, Finding]]) -> list[dict[str, Any]]:
    return [{"check": name, **finding._asdict()} for name, finding in found]
