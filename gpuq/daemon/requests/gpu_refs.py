"""Which GPUs are meant by what people write: "3", "0-2,5", a UUID or its beginning, a bus id's end."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from gpuq.core.gpus.fitting import named_gpus
from gpuq.core.gpus.gpu import Gpu
from gpuq.core.units import format_ranges, parse_ranges
from gpuq.errors import NothingMatched, UsageError

PREFIX = "gpu:"  # where a number alone would be something else


def find_gpus(refs: Sequence[Any], gpus: Sequence[Gpu]) -> list[Gpu]:
    """All that are named, each once, by index. Raises NothingMatched and UsageError."""
    if not refs:
        raise UsageError("no GPU is named: write 3, 0-2 or a UUID")
    found = {gpu.uuid: gpu for ref in refs for gpu in _find(_bare(str(ref)), gpus)}
    return sorted(found.values(), key=lambda gpu: gpu.index)


def _bare(ref: str) -> str:
    return ref[len(PREFIX) :] if ref.lower().startswith(PREFIX) else ref


def _find(word: str, gpus: Sequence[Gpu]) -> list[Gpu]:
    if word[:1].isdecimal() and ":" not in word:
        return _by_index(word, gpus)
    found = named_gpus(word, gpus)
    if not found:
        raise NothingMatched(f"there is no GPU {word!r}{_nearest(word, gpus)}")
    return found


def _by_index(word: str, gpus: Sequence[Gpu]) -> list[Gpu]:
    try:
        spans = parse_ranges(word)
    except ValueError as error:
        raise UsageError(f"{error}; a GPU is named like 3, 0-2,5 or GPU-8f3a") from None
    there = {gpu.index for gpu in gpus}
    for span in spans:
        if (missing := next((index for index in span if index not in there), None)) is not None:
            raise NothingMatched(f"there is no GPU {missing}{_nearest(str(missing), gpus)}")
    return [gpu for gpu in gpus if any(gpu.index in span for span in spans)]


def _nearest(word: str, gpus: Sequence[Gpu]) -> str:
    if not gpus:
        return ": this machine has none"
    here = f"this machine has {format_ranges([gpu.index for gpu in gpus])}"
    names = {name.lower(): name for gpu in gpus for name in (gpu.uuid, gpu.bus_id) if name}
    # Who writes a beginning means the like of it.
    beginnings = {name[: max(len(word), 1)]: name for name in names}
    near = get_close_matches(word.lower(), [*names, *beginnings], n=1) if len(word) > 3 else []
    if near:
        return f"; did you mean {names[beginnings.get(near[0], near[0])]}? {here.capitalize()}"
    return f": {here}"
