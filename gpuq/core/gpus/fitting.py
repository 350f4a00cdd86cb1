"""Which GPUs could ever serve a request: by what they are, not by who is on them just now."""

import re
from collections import Counter
from collections.abc import Sequence

from gpuq.core.gpus.gpu import Gpu
from gpuq.core.model import Request
from gpuq.core.policy import Policy
from gpuq.core.units import count, format_bytes
from gpuq.errors import UsageError

GIB = 2**30
_SPAN = re.compile(r"([0-9]{1,4})-([0-9]{1,4})")


def matches(gpu: Gpu, request: Request) -> bool:
    """Could this GPU ever serve the request, were nobody else on the machine?"""
    if request.gpu_model and request.gpu_model.lower() not in gpu.model.lower():
        return False
    if gpu.uuid in request.exclude_gpus or (request.gpu_ids and gpu.uuid not in request.gpu_ids):
        return False
    if gpu.parent is not None and request.gpus > 1:
        return False  # CUDA shows a process one instance of MIG, whatever it is given
    return _has_memory_for(gpu, request)


def largest_share(gpu: Gpu, policy: Policy) -> int:
    """Bytes that a sharing job can get of it at the most: the ledger keeps some headroom, and what
    the idle GPU itself shows as used is nobody's to give."""
    taken = (gpu.memory_reserved_bytes or 0) + gpu.baseline_bytes + policy.headroom_bytes
    return (gpu.memory_total_bytes or 0) - taken


def _has_share(gpu: Gpu, request: Request, policy: Policy) -> bool:
    if request.exclusive or request.gpu_mem_bytes is None:
        return True
    return request.gpu_mem_bytes <= largest_share(gpu, policy)


def _has_memory_for(gpu: Gpu, request: Request) -> bool:
    if request.gpu_mem_bytes is None:
        return True
    if gpu.memory_total_bytes is None:
        return request.exclusive
    if request.exclusive:
        # A card sold as 80G shows 79.6G: who asks for a whole GPU reads the label.
        return request.gpu_mem_bytes <= -(-gpu.memory_total_bytes // GIB) * GIB
    return request.gpu_mem_bytes <= gpu.memory_total_bytes - (gpu.memory_reserved_bytes or 0)


def is_allowed(gpu: Gpu, policy: Policy) -> bool:
    """May gpuq give this GPU to anybody? An instance of MIG is meant by the name of its card too."""
    if not policy.allow_gpus and not policy.deny_gpus:
        return True
    allowed = not policy.allow_gpus or any(is_meant(gpu, word) for word in policy.allow_gpus)
    return allowed and not any(is_meant(gpu, word) for word in policy.deny_gpus)


def is_meant(gpu: Gpu, word: str) -> bool:
    """Is it this GPU that an index, a range of them, a uuid or its beginning, or the end of a bus id
    names?"""
    word = word.strip().lower()
    if span := _SPAN.fullmatch(word):
        return int(span[1]) <= gpu.index <= int(span[2])
    if word.isdecimal():
        return str(gpu.index) == (word.lstrip("0") or "0")  # of any length: int() refuses some
    names = [gpu.uuid.lower(), (gpu.parent or "").lower()]
    if word.startswith(("gpu-", "mig-")):
        return len(word) > len("gpu-") and any(name.startswith(word) for name in names)
    return bool(word) and ":" in word and (gpu.bus_id or "").lower().endswith(word)


def find_gpus(words: Sequence[str], gpus: Sequence[Gpu]) -> tuple[str, ...]:
    """The uuids of the GPUs that a person names. Raises UsageError for a name that is nobody's, or the
    beginning of several uuids."""
    found: list[str] = []
    for word in words:
        named = named_gpus(word, gpus)
        if not named:
            raise UsageError(f"there is no GPU {word!r} here: {_names(gpus)}")
        found += [gpu.uuid for gpu in named]
    return tuple(dict.fromkeys(found))


def named_gpus(word: str, gpus: Sequence[Gpu]) -> list[Gpu]:
    """The GPUs that one word names, with all instances of a card; none where it is nobody's name, or a
    range of which one is missing. Raises UsageError for the beginning of several uuids."""
    found = [gpu for gpu in gpus if is_meant(gpu, word)]
    if span := _SPAN.fullmatch(word.strip()):
        wanted = range(int(span[1]), int(span[2]) + 1)
        return found if {gpu.index for gpu in found} == set(wanted) else []
    cards = {gpu.parent or gpu.uuid for gpu in found}
    if len(cards) > 1:
        raise UsageError(f"GPU {word!r} could be any of {len(cards)}: write more of it")
    return found


def _names(gpus: Sequence[Gpu]) -> str:
    if not gpus:
        return "this machine has none"
    return "it is an index (" + ", ".join(str(gpu.index) for gpu in gpus) + "), a UUID or a bus id"


def never_fits(request: Request, gpus: Sequence[Gpu], policy: Policy) -> str | None:
    """Why no GPU that this machine has ever shown can serve the request; None if some can."""
    if request.cpu_slots > policy.cpu_slots:
        return (
            f"--cpus {request.cpus} can never start: "
            f"this machine has {count(policy.cpu_slots, 'CPU slot')}"
        )
    allowed = [gpu for gpu in gpus if is_allowed(gpu, policy)]
    fitting = sum(matches(gpu, request) and _has_share(gpu, request, policy) for gpu in allowed)
    # Those hours end one day, and then they are to be had.
    kept = 0 if policy.reserve_hours else policy.reserve_idle
    kept_back = max(min(kept, len(allowed)) - (len(allowed) - fitting), 0)
    if request.gpus <= fitting - kept_back:
        return None
    wanted = f"--gpus {request.gpus}{_wish_words(request)}"
    there = _what_there_is(request, gpus, len(allowed), fitting, kept_back)
    if any(matches(gpu, request) and not _has_share(gpu, request, policy) for gpu in allowed):
        most = max(largest_share(gpu, policy) for gpu in allowed)
        there += f"; a job that shares one gets {format_bytes(max(most, 0))} at most (headroom): "
        there += "add --exclusive for one to itself"
    return f"{wanted} can never start: {there}"


def _what_there_is(
    request: Request, gpus: Sequence[Gpu], allowed: int, fitting: int, kept_back: int
) -> str:
    if not gpus:
        return "this machine has no GPU"
    if fitting == len(gpus):
        words = f"this machine has {count(len(gpus), 'GPU')}"
    else:
        words = f"{fitting} of this machine's {len(gpus)} GPUs would do ({_census(gpus)})"
    if request.gpus > 1 and any(gpu.parent for gpu in gpus):
        words += "; a job of several GPUs gets no MIG instances, of which CUDA shows it one"
    if allowed < len(gpus):
        words += f"; {len(gpus) - allowed} gpuq may not give out (allow_gpus, deny_gpus)"
    if kept_back:
        words += f"; reserve_idle leaves {kept_back} of them to people outside gpuq"
    return words


def _census(gpus: Sequence[Gpu]) -> str:
    """ "2 x NVIDIA H100 with 79.6G, 1 x …"."""
    kinds = Counter((gpu.model, gpu.memory_total_bytes) for gpu in gpus)
    return ", ".join(
        f"{number} x {model} with {format_bytes(memory)}"
        for (model, memory), number in kinds.items()
    )


def _wish_words(request: Request) -> str:
    words = f" --gpu-model {request.gpu_model}" if request.gpu_model else ""
    if request.gpu_mem_bytes is not None:
        words += f" --gpu-mem {format_bytes(request.gpu_mem_bytes)}"
    if request.gpu_ids:
        words += " --gpu-id"
    if request.exclude_gpus:
        words += " --exclude-gpu"
    return words
