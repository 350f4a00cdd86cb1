"""The words by which a person chooses GPUs: the machine's, none, simulated ones, or a story."""

import re
from dataclasses import dataclass
from typing import Literal

from gpuq.core.units import format_bytes, parse_bytes, parse_ranges
from gpuq.daemon.gpus.backend import MAX_GPUS
from gpuq.daemon.gpus.simulated.plain import SimulatedGpu
from gpuq.errors import UsageError

_GROUP = re.compile(r"(\d{1,4})x([^:]+)(?::([^:]{1,60}))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendSpec:
    kind: Literal["nvml", "none", "sim", "scenario"]
    simulated: tuple[SimulatedGpu, ...] = ()
    scenario: str | None = None  # the path of its file, or the name of one that is shipped
    indices: frozenset[int] | None = None  # of the machine's GPUs only these; None: all of them


def parse_gpus(text: str) -> BackendSpec:
    """The GPUs meant by "nvml", "nvml:0-3", "none", "sim:4x24G", "sim:2x80G:H100+1x24G" or
    "scenario:shared-box". Raises UsageError. Whether a scenario can be read is asked by check_gpus.
    """
    kind, _, which = text.strip().partition(":")
    try:
        if kind == "nvml":
            return BackendSpec(kind="nvml", indices=_parse_indices(which) if which else None)
        if text.strip() == "none":
            return BackendSpec(kind="none")
        if kind == "scenario" and which:
            return BackendSpec(kind="scenario", scenario=which)
        return BackendSpec(kind="sim", simulated=_parse_simulated(text.strip()))
    except ValueError as error:
        raise UsageError(
            f"GPUs {text!r}: {error}; write nvml, nvml:0-3 for some of the machine's, none, "
            "simulated ones like sim:4x24G or sim:2x80G:H100+1x24G, or a scenario, which is a file "
            "or a shipped one like scenario:shared-box"
        ) from error


def check_gpus(text: str) -> None:
    """Raises UsageError where a daemon could not even try these GPUs."""
    spec = parse_gpus(text)
    if spec.scenario is not None:
        from gpuq.daemon.gpus.simulated.scenario_file import read_scenario

        read_scenario(spec.scenario)


def _parse_indices(text: str) -> frozenset[int]:
    spans = parse_ranges(text)
    if any(span.stop > MAX_GPUS for span in spans):
        raise ValueError(f"indices go up to {MAX_GPUS - 1}")
    return frozenset(index for span in spans for index in span)


def _parse_simulated(text: str) -> tuple[SimulatedGpu, ...]:
    if not text.startswith("sim:"):
        raise ValueError("no such kind")
    gpus: list[SimulatedGpu] = []
    for group in text.removeprefix("sim:").split("+"):
        gpus += _parse_group(group.strip())
        if len(gpus) > MAX_GPUS:
            raise ValueError(f"at most {MAX_GPUS} can be simulated")
    return tuple(gpus)


def _parse_group(text: str) -> list[SimulatedGpu]:
    match = _GROUP.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a number and a size")
    memory = parse_bytes(match[2])
    model = (match[3] or f"Simulated {format_bytes(memory)}").strip()
    if not int(match[1]) or not memory or not model or not model.isprintable():
        raise ValueError(f"{text!r} gives no GPU")
    return [SimulatedGpu(model=model, memory_bytes=memory)] * int(match[1])
