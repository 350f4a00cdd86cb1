"""Looks at the GPUs: the driver, its library, its devices, and what gpuq holds against a GPU."""

import os
import re
import shutil
from collections.abc import Iterator
from typing import Any

from gpuq import service
from gpuq.cli.doctor.bounded import run
from gpuq.cli.doctor.finding import Finding, failure, ok, warning
from gpuq.cli.doctor.scene import Scene
from gpuq.cli.gpu_text import census
from gpuq.cli.render import Gpu

VERSION_FILE = "/proc/driver/nvidia/version"
CONTROL = "/dev/nvidiactl"
ASK_S, ASK_DEEP_S = 2.2, 30.0
NVIDIA, DISPLAY = "0x10de", "0x03"  # vendor, and the first byte of the class (PCI ID repository)
SIMULATE = "To try gpuq out on simulated GPUs: gpuq daemon start --gpus sim:4x24G"


def driver(scene: Scene) -> Iterator[Finding]:
    """NVIDIA's driver in the kernel, and whether its devices are there for you."""
    loaded = scene.read(VERSION_FILE)
    cards = _cards(scene)
    if loaded is not None:
        yield ok(loaded.splitlines()[0].strip())
        yield from _devices(scene)
    elif cards:
        nouveau = " (nouveau has it)" if os.path.exists(scene.at("/sys/module/nouveau")) else ""
        what = f"an NVIDIA GPU at {cards[0]}, and no driver of NVIDIA's is loaded{nouveau}"
        yield failure(what, "sudo modprobe nvidia; where that fails, install the driver")
    elif _goes_without(scene):
        yield ok("no NVIDIA driver is loaded, and none is asked for")
    else:
        yield warning("no NVIDIA driver is loaded", SIMULATE)


def library(scene: Scene) -> Iterator[Finding]:
    """NVML, the library of the driver, in a process of its own: it may hang with the driver."""
    if scene.read(VERSION_FILE) is None:
        return
    tool = shutil.which("nvidia-smi", path=service.TOOLS if service.is_root() else None)
    if tool is None:
        yield warning("there is no nvidia-smi", "Install the tools of the driver's own version")
        return
    query = ["--query-gpu=index,driver_version", "--format=csv,noheader"]
    ran = run([tool, *query], ASK_DEEP_S if scene.deep else ASK_S)
    if ran.code == 0:
        yield ok(f"NVML answers: {len(ran.out.splitlines())} GPUs by nvidia-smi")
    elif ran.code is None:
        yield warning(f"nvidia-smi: {ran.last_words}", "Does the driver hang? dmesg | grep -i xid")
    elif "mismatch" in ran.out + ran.err:
        what = f"the driver in the kernel and its library differ: {ran.last_words}"
        yield failure(what, "Reboot, or unload and load the driver: sudo rmmod nvidia_uvm nvidia")
    else:
        yield failure(f"nvidia-smi fails: {ran.last_words}", "dmesg | grep -i -e nvrm -e xid")


def gpus(scene: Scene) -> Iterator[Finding]:
    """The GPUs that the daemon has, and those that it gives to nobody, each with the reason."""
    answer = scene.told().gpus
    if answer is None:
        return
    if answer["gpu_trouble"]:
        yield warning(f"no GPUs: {answer['gpu_trouble']}", _remedy(scene))
        return
    origin = answer.get("gpu_origin")
    whence = "" if origin is None else f" (from {origin})"
    yield ok(f"{census(answer['gpus'])} by {answer['gpu_backend']}{whence}")
    for gpu in answer["gpus"]:
        yield from _gpu(gpu)


def bounds(scene: Scene) -> Iterator[Finding]:
    """What --mem and --cpus are worth here."""
    here = scene.told().bounds
    if here is None:  # a daemon that is older
        return
    weaker = {
        "mem": "watched once a second and not enforced by the kernel",
        "cpu": "not enforced, and only counted for jobs without GPUs",
    }
    for name, option in (("mem", "--mem"), ("cpu", "--cpus")):
        trouble = here[f"{name}_trouble"]
        promise = "enforced by the kernel" if trouble is None else f"{weaker[name]}: {trouble}"
        yield ok(f"{option} is {promise}")


def driver_version(scene: Scene) -> tuple[int, ...] | None:
    """As (535, 104, 5); None where no driver is loaded."""
    found = re.search(r"\b(\d{3}(?:\.\d+)+)\b", scene.read(VERSION_FILE) or "")
    return None if found is None else tuple(map(int, found[1].split(".")))


def _devices(scene: Scene) -> Iterator[Finding]:
    control = scene.at(CONTROL)
    if not os.path.exists(control):
        remedy = "sudo nvidia-modprobe -u -c 0; in a container: run it with --gpus all"
        yield failure(f"there is no {CONTROL}, though the driver is loaded", remedy)
    elif not os.access(control, os.R_OK | os.W_OK):
        mode = os.stat(control).st_mode & 0o777
        what = f"you may not use {CONTROL}: it has mode {mode:04o}"
        yield failure(what, f"See: ls -l /dev/nvidia*; id. As root: chmod 666 {CONTROL}")


def _cards(scene: Scene) -> list[str]:
    """The places on the PCI bus that have a GPU of NVIDIA's."""
    folder = "/sys/bus/pci/devices"
    try:
        places = sorted(os.listdir(scene.at(folder)))
    except OSError:
        return []
    return [place for place in places if _is_card(scene, f"{folder}/{place}")]


def _is_card(scene: Scene, place: str) -> bool:
    vendor, kind = scene.read(f"{place}/vendor"), scene.read(f"{place}/class")
    return (vendor or "").strip() == NVIDIA and (kind or "").startswith(DISPLAY)


def _goes_without(scene: Scene) -> bool:
    """Was the daemon told to have none, or simulated ones?"""
    there: dict[str, Any] = scene.told().ping or {}
    return str(there.get("gpu_backend", "nvml")).startswith(("sim", "scenario", "none"))


def _remedy(scene: Scene) -> str:
    if scene.read(VERSION_FILE) is not None:
        return "The driver is loaded, so ask it: nvidia-smi"
    return (
        "Without NVIDIA's driver: gpuq daemon restart --gpus sim:4x24G simulates four GPUs; "
        "a job with --gpus 0 needs none"
    )


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
        yield warning(f"GPU {number}: {reason}", remedies[gpu["state"]])
    if gpu.get("locked_by"):
        remedy = "Each GPU serves one daemon at a time"
        yield warning(f"GPU {number}: {gpu['locked_by']}", remedy)
    for said in gpu.get("warnings", ()):
        yield warning(f"GPU {number} warns: {said}", f"See: gpuq why gpu:{number}")
