"""What to do after an outcome: nothing, or the same again after a while, with more where the GPU's
memory was too little.

Here it is decided whether and when, and what is asked then. Nothing is started, stored or timed
here, and luck is handed in.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

from gpuq.core.gpus import fitting
from gpuq.core.gpus.fitting import GIB, matches, never_fits
from gpuq.core.gpus.gpu import Gpu
from gpuq.core.model import Outcome, Request
from gpuq.core.policy import Policy
from gpuq.core.units import format_bytes, format_ranges, format_seconds, parse_seconds

LONGEST_WAIT_S = 365 * 86400.0
MOST_STEPS = 100
SPREAD = 0.25  # of a doubling wait, to either side: jobs that failed together come back apart
GROWTH = 1.5  # of the memory that a sharing job asks for, after it had too little
LEAST_GROWTH = 1.25  # of what it asked or was seen to use: less is not worth another attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """A wait for each retry in turn, the last one for all that follow; kept to exactly."""

    seconds: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubling:
    """Twice as long each time, by chance up to a quarter less or more, never above `most_s`."""

    first_s: float
    most_s: float = 3600.0


Backoff = Steps | Doubling

# The outcomes that may be tried again, by the words that people write for them.
_WORDS = {
    "failed": Outcome.FAILED,
    "out_of_memory": Outcome.OUT_OF_MEMORY,
    "lost": Outcome.LOST,
    "timed_out": Outcome.TIMED_OUT,
}
_ALIASES = {"oom": "out_of_memory", "timeout": "timed_out"}

DEFAULT_BACKOFF: Backoff = Doubling(first_s=10.0, most_s=600.0)
# A job that ran into its own limit would do so again.
DEFAULT_ON = frozenset({"failed", "out_of_memory", "lost"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryRule:
    """How often, after what wait, and after which ends: outcomes, and codes as `exit:75`."""

    retries: int = 0
    backoff: Backoff = DEFAULT_BACKOFF
    on: frozenset[str] = DEFAULT_ON


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How an attempt ended and what it had. `attempt` is its number, counted from 1.

    `wished`: somebody wanted the job's end. `gpu_exhausted`: a GPU's memory was too little.
    `gpus` are those it held; `used_bytes` is the most it was seen to use on one of them.
    """

    outcome: Outcome
    attempt: int
    request: Request
    exit_code: int | None = None
    wished: bool = False
    gpu_exhausted: bool = False
    gpus: tuple[Gpu, ...] = ()
    used_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """Another attempt, `delay_s` from now; with `request` where it asks for something else."""

    delay_s: float
    why: str
    request: Request | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class No:
    """No other attempt; `why` where somebody might have expected one."""

    why: str | None = None


def decide(
    rule: RetryRule, ending: Ending, machine: Sequence[Gpu], policy: Policy, luck: float
) -> Again | No:
    """`machine` is every GPU that this machine has shown; `luck` is from 0 up to, not including, 1."""
    if ending.wished or rule.retries < 1 or ending.outcome not in _WORDS.values():
        return No()
    if not _covers(rule, ending):
        what = _end_words(ending)
        return No(why=f"not retried: {what} is not among {format_retry_on(rule.on)}")
    if ending.attempt > rule.retries:
        return No(why=f"attempt {ending.attempt} of {rule.retries + 1} was the last")
    delay_s = delay(rule.backoff, ending.attempt, luck)
    why = f"attempt {ending.attempt + 1} of {rule.retries + 1} {_delay_words(delay_s)}"
    if not ending.gpu_exhausted or not ending.request.gpus:
        return Again(delay_s=delay_s, why=why)
    change = _ask_for_more(ending, machine, policy)
    if isinstance(change, str):
        return No(why=f"not retried: {change}")
    return Again(delay_s=delay_s, why=f"{why} {_change_words(ending, change)}", request=change)


def _covers(rule: RetryRule, ending: Ending) -> bool:
    if ending.outcome in {_WORDS[word] for word in rule.on if word in _WORDS}:
        return True
    by_itself = ending.outcome in (Outcome.FAILED, Outcome.OUT_OF_MEMORY)
    return by_itself and f"exit:{ending.exit_code}" in rule.on


def _end_words(ending: Ending) -> str:
    if ending.outcome is Outcome.FAILED and ending.exit_code is not None:
        return f"exit code {ending.exit_code}"
    return str(ending.outcome)


def delay(backoff: Backoff, retry: int, luck: float) -> float:
    """Seconds to wait before this retry, counted from 1."""
    if isinstance(backoff, Steps):
        return backoff.seconds[min(retry, len(backoff.seconds)) - 1]
    # Below the most by the spread: else half of the longest waits would be equal to it.
    middle = min(backoff.first_s * 2.0 ** min(retry - 1, 64), backoff.most_s / (1 + SPREAD))
    return middle * (1 - SPREAD + 2 * SPREAD * luck)


def _delay_words(delay_s: float) -> str:
    if delay_s < 0.05:
        return "at once"
    if delay_s < 9.95:
        return f"in {delay_s:.1f}".removesuffix(".0") + " s"
    return f"in {delay_s:.0f} s" if delay_s < 99.5 else f"in {format_seconds(delay_s)}"


def _ask_for_more(ending: Ending, machine: Sequence[Gpu], policy: Policy) -> Request | str:
    """What to ask after a GPU's memory was too little, or why nothing would be better.

    A share grows to what a GPU can give, then becomes a whole GPU, and that a larger one. Each
    step asks for more than the one before, and the machine is finite.
    """
    asked = ending.request
    if asked.exclusive or asked.gpu_mem_bytes is None:
        return _ask_for_larger(ending, machine, policy)
    worthwhile = max(asked.gpu_mem_bytes, ending.used_bytes or 0) * LEAST_GROWTH
    wanted = ceil(max(asked.gpu_mem_bytes * GROWTH, worthwhile))
    share = min(wanted, largest_share(asked, machine, policy))
    if share >= worthwhile:
        return _possible(replace(asked, gpu_mem_bytes=share), machine, policy)
    return _possible(replace(asked, exclusive=True), machine, policy)


def largest_share(asked: Request, machine: Sequence[Gpu], policy: Policy) -> int:
    """Bytes that a sharing job can get at the most, on as many GPUs as it wants."""
    anything = replace(asked, gpu_mem_bytes=1)
    shares = sorted(fitting.largest_share(gpu, policy) for gpu in machine if matches(gpu, anything))
    return shares[-asked.gpus] if len(shares) >= asked.gpus else 0


def _ask_for_larger(ending: Ending, machine: Sequence[Gpu], policy: Policy) -> Request | str:
    """A whole GPU of the next gigabyte above the label of the one it had, see `matches`."""
    asked, had = ending.request, _smallest_label(ending.gpus)
    if had is None:
        return "nobody can tell how much memory the GPU it had to itself has"
    # More than it had, and than it asked: where the two contradict, it still asks for more.
    wanted = replace(asked, exclusive=True, gpu_mem_bytes=max(had, asked.gpu_mem_bytes or 0) + GIB)
    known = [gpu for gpu in machine if gpu.memory_total_bytes is not None]
    if sum(matches(gpu, wanted) for gpu in known) < asked.gpus:
        whole = "a whole GPU" if asked.gpus == 1 else f"{asked.gpus} whole GPUs"
        none = "none is larger" if asked.gpus == 1 else f"there are no {asked.gpus} larger ones"
        return f"it had {whole} of {format_bytes(had)} to itself already, and {none}"
    return _possible(wanted, machine, policy)


def _smallest_label(gpus: Sequence[Gpu]) -> int | None:
    """Bytes, whole gigabytes: a GPU sold as 80G shows 79.6G."""
    known = [gpu.memory_total_bytes for gpu in gpus if gpu.memory_total_bytes is not None]
    return -(-min(known) // GIB) * GIB if known else None


def _possible(request: Request, machine: Sequence[Gpu], policy: Policy) -> Request | str:
    return never_fits(request, machine, policy) or request


def _change_words(ending: Ending, change: Request) -> str:
    asked = ending.request
    new, old = format_bytes(change.gpu_mem_bytes), format_bytes(asked.gpu_mem_bytes)
    if not change.exclusive:
        return f"with {new} instead of {old} per GPU"
    whole = "a whole GPU" if change.gpus == 1 else f"{change.gpus} whole GPUs"
    if not asked.exclusive:
        return f"with {whole} instead of {old} per GPU"
    return f"with {whole} of {new} or more instead of {format_bytes(_smallest_label(ending.gpus))}"


# ── as people write it ──


def parse_backoff(text: str) -> Backoff:
    """ "30s" each time; "2s,4s,8s" in turn, and 8 s from then on; "exp:2s:5m" doubling from 2 s up
    to 5 min, by chance up to a quarter less or more; "exp:2s" the same up to an hour."""
    try:
        backoff = _read_backoff(text.strip().lower())
    except ValueError:
        example = "write it like 10s, 2s,4s,8s or exp:2s:5m"
        raise ValueError(f"{text!r} is no backoff: {example}") from None
    if trouble := _trouble(backoff):
        raise ValueError(f"{text!r} is no backoff: {trouble}")
    return backoff


def _read_backoff(text: str) -> Backoff:
    if not text.startswith("exp:"):
        return Steps(seconds=tuple(map(_read_wait, text.split(","))))
    first_s, *most_s = map(_read_wait, text.removeprefix("exp:").split(":"))
    if len(most_s) > 1:
        raise ValueError
    return Doubling(first_s=first_s, most_s=most_s[0] if most_s else _usual_most(first_s))


def _read_wait(text: str) -> float:
    return round(parse_seconds(text), 3)


def _usual_most(first_s: float) -> float:
    return max(3600.0, first_s)


def _trouble(backoff: Backoff) -> str | None:
    waits = backoff.seconds if isinstance(backoff, Steps) else (backoff.first_s, backoff.most_s)
    if len(waits) > MOST_STEPS:
        return f"it has more than {MOST_STEPS} steps"
    if max(waits) > LONGEST_WAIT_S:
        return "nothing waits longer than a year"
    if isinstance(backoff, Doubling) and not 0 < backoff.first_s <= backoff.most_s:
        return "it doubles from a wait above 0 to one that is no shorter"
    return None


def format_backoff(backoff: Backoff) -> str:
    """What `parse_backoff` reads back to the same."""
    if isinstance(backoff, Steps):
        return ",".join(map(_wait_words, backoff.seconds))
    words = f"exp:{_wait_words(backoff.first_s)}"
    if backoff.most_s != _usual_most(backoff.first_s):
        words += f":{_wait_words(backoff.most_s)}"
    return words


def _wait_words(seconds: float) -> str:
    """Exact to the millisecond, unlike what people are shown: "90s", "1h", "250ms"."""
    whole = round(seconds * 1000)
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if whole % size == 0 and (whole or unit == "s"):
            return f"{whole // size}{unit}"
    return f"{whole}ms"


def parse_retry_on(text: str) -> frozenset[str]:
    """ "failed,oom,exit:75-77" as words of a `RetryRule`."""
    return frozenset(word for part in text.split(",") for word in _read_end(part.strip().lower()))


def _read_end(part: str) -> list[str]:
    word = _ALIASES.get(part, part)
    if word in _WORDS:
        return [word]
    if match := re.fullmatch(r"exit:(\d{1,3})(?:-(\d{1,3}))?", part):
        first, last = int(match[1]), int(match[2] or match[1])
        if 1 <= first <= last <= 255:
            return [f"exit:{code}" for code in range(first, last + 1)]
        raise ValueError(f"{part!r} is no exit code of a failure: those are 1 to 255")
    example = "write it like failed,oom,lost,timeout or exit:75"
    raise ValueError(f"{part!r} is no end to retry on: {example}")


def format_retry_on(on: frozenset[str]) -> str:
    """What `parse_retry_on` reads back to the same."""
    words = [word for word in _WORDS if word in on]
    codes = [int(word.removeprefix("exit:")) for word in on if word.startswith("exit:")]
    ranges = format_ranges(codes).split(",") if codes else []
    return ",".join(words + [f"exit:{codes}" for codes in ranges])
