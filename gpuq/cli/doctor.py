"""`gpuq doctor`: what is wrong here, and what to do about it."""

import os
import platform
import sys
from collections.abc import Callable, Iterator
from typing import Annotated, Any, NamedTuple

import typer
from typer import Option

import gpuq
from gpuq import paths, service
from gpuq.cli import console
from gpuq.cli.gpu_text import census
from gpuq.cli.render import GREEN, RED, YELLOW, Column, Gpu, Look, printable, tabbed, table
from gpuq.client import Client
from gpuq.core.units import format_bytes
from gpuq.errors import GpuqError

OLDEST_PYTHON = (3, 11)
LITTLE_DISK = 2 * 2**30
COLOURS = {"ok": GREEN, "warning": YELLOW, "failure": RED}


class Finding(NamedTuple):
    """`level` is ok, warning or failure; what is not ok has a remedy."""

    level: str
    what: str
    remedy: str = ""


def doctor(
    context: typer.Context,
    deep: Annotated[
        bool, Option("--deep", help="Test every idle GPU, too: some seconds each, all at once.")
    ] = False,
    json: Annotated[bool, Option("--json", help="Print the findings as JSON.")] = False,
) -> int:
    """Look over this machine and this installation; exit 1 where something is broken.

    Examples:
      gpuq doctor
      gpuq doctor --deep     do the GPUs compute and remember right, and how fast?

    A GPU whose test is bad is set aside until one is good; one in use is not tested.
    """
    look = console.look(context)
    with console.connect(context) as client:
        findings = list(_look_over(client))
        if json:
            tests = _test(client, look, quiet=True) if deep else []
            console.say_json(findings=[finding._asdict() for finding in findings], tests=tests)
        else:
            console.say(*(_shown(findings, look) if look.terminal else map(tabbed, findings)))
            tests = _test(client, look, quiet=False) if deep else []
    is_broken = any(finding.level == "failure" for finding in findings)
    is_bad = any(test["verdict"] in ("bad", "undecided") for test in tests)
    return 1 if is_broken or is_bad else 0


def _test(client: Client, look: Look, *, quiet: bool) -> list[dict[str, Any]]:
    from gpuq.cli.gpu_tests import run_tests

    return run_tests(client, look, quiet=quiet)


def _shown(findings: list[Finding], look: Look) -> list[str]:
    columns = [
        Column("", lambda finding: (finding.level, COLOURS[finding.level])),
        Column("", _sentence),
    ]
    return table(columns, findings, look._replace(width=10**6))[1:]


def _sentence(finding: Finding) -> str:
    remedy = f". {finding.remedy}" if finding.remedy else ""
    return printable(finding.what + remedy)


def _look_over(client: Client) -> Iterator[Finding]:
    yield _python()
    yield Finding("ok", f"gpuq {gpuq.__version__}, in {os.path.dirname(gpuq.__file__)}")
    there = None
    try:
        there = client.call("ping")
    except GpuqError as error:
        yield _no_daemon(client, error)
    if there is not None:
        yield _daemon(client, there)
        yield _version(there)
        yield from _logout(there)
        yield from _gpus(client)
        yield from _bounds(client)
    state_dir = there["state_dir"] if there else client.address.state_dir
    if state_dir is not None:
        yield _file_system(state_dir)
        yield _disk(state_dir)
    yield from _settings_in_force(client, there) if there else [_config(client)]
    if there is None:
        yield _driver()
    yield from _kernel()
    yield _torch()


def _python() -> Finding:
    what = f"Python {platform.python_version()}, {sys.executable}"
    if sys.version_info < OLDEST_PYTHON:
        return Finding("failure", what, "gpuq needs Python 3.11")
    return Finding("ok", what)


def _no_daemon(client: Client, error: GpuqError) -> Finding:
    if client.address.may_start:
        where = f"{client.address.socket} (from {client.address.origin})"
        return Finding("ok", f"no daemon at {where}; `gpuq submit` starts one there")
    return Finding("failure", str(error))


def _daemon(client: Client, there: dict[str, Any]) -> Finding:
    address = client.address
    return Finding(
        "ok", f"daemon with pid {there['pid']} at {address.socket} (from {address.origin})"
    )


def _version(there: dict[str, Any]) -> Finding:
    if there["version"] == gpuq.__version__:
        return Finding("ok", f"the daemon is of this version, {gpuq.__version__}")
    return Finding(
        "warning",
        f"the daemon is of version {there['version']}, this command of {gpuq.__version__}",
        "Running jobs outlive it: gpuq daemon restart",
    )


def _logout(there: dict[str, Any]) -> Iterator[Finding]:
    """Whether a daemon of one's own and its jobs outlive the last session."""
    if there["mode"] != "user" or service.is_root() or not os.path.isdir(service.BOOTED):
        return
    if service.outlives_logout():
        yield Finding("ok", "your daemon and its jobs outlive a logout: you linger")
    elif service.keeps(there["pid"]) or service.logout_ends_all():
        what = "systemd ends your daemon and its jobs when you log out: you do not linger"
        yield Finding("warning", what, "loginctl enable-linger")
    else:
        yield Finding("ok", "your daemon and its jobs outlive a logout")


def _gpus(client: Client) -> Iterator[Finding]:
    answer = client.gpus()
    if answer["gpu_trouble"]:
        yield Finding("warning", f"no GPUs: {answer['gpu_trouble']}", _remedy(answer))
        return
    origin = answer.get("gpu_origin")
    whence = "" if origin is None else f" (from {origin})"
    yield Finding("ok", f"{census(answer['gpus'])} by {answer['gpu_backend']}{whence}")
    for gpu in answer["gpus"]:
        yield from _gpu(gpu)


def _bounds(client: Client) -> Iterator[Finding]:
    """What --mem and --cpus are worth here."""
    try:
        here = client.call("bounds")
    except GpuqError:  # a daemon that is older
        return
    weaker = {
        "mem": "watched once a second and not enforced by the kernel",
        "cpu": "not enforced, and only counted for jobs without GPUs",
    }
    for name, option in (("mem", "--mem"), ("cpu", "--cpus")):
        trouble = here[f"{name}_trouble"]
        promise = "enforced by the kernel" if trouble is None else f"{weaker[name]}: {trouble}"
        yield Finding("ok", f"{option} is {promise}")


def _gpu(gpu: Gpu) -> Iterator[Finding]:
    """What somebody should know of one GPU, and can do."""
    number = gpu["index"]
    remedies = {
        "drained": f"End it: gpuq gpus resume {number}",
        "quarantined": f"See: gpuq why gpu:{number}",
        "lost": f"See: gpuq why gpu:{number}",
        "dirty": "See: gpuq gpus --procs",
    }
    if gpu["state"] in remedies:
        reason = gpu["reason"] or gpu["state"]
        yield Finding("warning", f"GPU {number}: {reason}", remedies[gpu["state"]])
    if gpu.get("locked_by"):
        remedy = "Each GPU serves one daemon at a time"
        yield Finding("warning", f"GPU {number}: {gpu['locked_by']}", remedy)
    for warning in gpu.get("warnings", ()):
        yield Finding("warning", f"GPU {number} warns: {warning}", f"See: gpuq why gpu:{number}")


def _remedy(answer: dict[str, Any]) -> str:
    if os.path.exists("/proc/driver/nvidia/version"):
        return "The driver is loaded, so ask it: nvidia-smi"
    return (
        "Without NVIDIA's driver: gpuq daemon restart --gpus sim:4x24G simulates four GPUs; "
        "a job with --gpus 0 needs none"
    )


def _settings_in_force(client: Client, there: dict[str, Any]) -> Iterator[Finding]:
    said = {one["name"]: one["value"] for one in client.call("config")["settings"]}
    yield Finding("ok", f"settings of {said['config']}, flags, the environment and the defaults")
    for note in there.get("config_notes", ()):
        yield Finding("warning", note, "See: gpuq config")
    # One's own daemon may be started again, and then goes by the file as it is found from here.
    if there["mode"] != "system" and (found := _config(client)).level == "failure":
        yield found


def _config(client: Client) -> Finding:
    from gpuq.config import load

    try:
        settings = load({"state_dir": client.address.state_dir}, os.environ)
    except GpuqError as error:
        return Finding("failure", str(error), "A daemon started now would refuse it")
    return Finding("ok", f"settings of {settings.config}, the environment and the defaults")


def _driver() -> Finding:
    """What can be told without a daemon, which alone loads the driver's library."""
    try:
        with open("/proc/driver/nvidia/version") as file:
            return Finding("ok", file.readline().strip())
    except OSError:
        remedy = "To try gpuq out on simulated GPUs: gpuq daemon start --gpus sim:4x24G"
        return Finding("warning", "no NVIDIA driver is loaded", remedy)


def _file_system(state_dir: str) -> Finding:
    kind = paths.file_system_of(state_dir)
    what = f"state in {state_dir}, on {kind or 'a file system that does not say what it is'}"
    if kind in paths.NETWORK_FILE_SYSTEMS:
        remedy = "A database does not live on a network: choose a local --state-dir"
        return Finding("failure", what, remedy)
    if kind == "tmpfs":
        return Finding("warning", what, "Gone after a reboot: choose a --state-dir on a disk")
    return Finding("ok", what)


def _disk(state_dir: str) -> Finding:
    folder = state_dir
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    room = os.statvfs(folder)
    free = room.f_bavail * room.f_frsize
    what = f"{format_bytes(free)} free there"
    if free < LITTLE_DISK:
        return Finding("warning", what, "Logs need room; old ones are in jobs/ below it")
    return Finding("ok", what)


def _kernel() -> Iterator[Finding]:
    release = platform.release()
    if _works(lambda: os.close(os.pidfd_open(os.getpid()))):
        yield Finding("ok", f"Linux {release} with pidfd")
    else:
        yield Finding("failure", f"Linux {release} without pidfd_open", "Linux 5.3 or newer has it")
    if where := _cgroup2():
        yield Finding("ok", f"cgroup 2 at {where}")
    else:
        yield Finding(
            "warning",
            "no cgroup 2",
            "Jobs end cleanly without; to have it: systemd.unified_cgroup_hierarchy=1",
        )


def _cgroup2() -> str | None:
    """Where it is mounted: at the top, or beside the older hierarchies."""
    try:
        with open("/proc/self/mounts") as file:
            found = [line.split() for line in file]
    except OSError:
        return None
    return next((words[1] for words in found if words[2] == "cgroup2"), None)


def _works(deed: Callable[[], None]) -> bool:
    try:
        deed()
    except OSError:
        return False
    return True


def _torch() -> Finding:
    from importlib.util import find_spec

    if find_spec("torch") is not None:
        return Finding("ok", "torch is installed beside gpuq")
    return Finding(
        "ok",
        "no torch beside gpuq; `gpuq demo` wants one, and `gpuq doctor --deep` tests more with it: "
        "pip install 'gpuqd[demo]'",
    )
