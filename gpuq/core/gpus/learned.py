"""`--gpu-mem auto`: what a command is given of a GPU by what it has used of one before.

Which runs are runs of the same command, what of them is remembered, and what is asked for by that.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

from gpuq.core.ends.retry import largest_share
from gpuq.core.gpus.gpu import Gpu
from gpuq.core.model import Request
from gpuq.core.policy import Policy
from gpuq.core.units import count, format_bytes

MIB = 2**20
# Over the most that was seen: a peak between two readings is seen by nobody, and the next run may
# have a longer sentence in its batch.
GROWTH = 1.2
MARGIN_BYTES = 256 * MIB
STEP_BYTES = 256 * MIB  # requests that hardly differ are of one class
# An old peak fades with each run that stays below it: a command that was changed gets less in time.
FADING = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is remembered of a command: bytes of one GPU, and the runs that showed it, the last of
    which was this job."""

    peak_bytes: int
    runs: int
    last_job: int


def remember(peak_bytes: int, before: Known | None, job: int) -> Known:
    """What is known of a command once this job of it has succeeded too."""
    if before is None:
        return Known(peak_bytes=peak_bytes, runs=1, last_job=job)
    faded_bytes = int(before.peak_bytes * FADING)
    return Known(peak_bytes=max(peak_bytes, faded_bytes), runs=before.runs + 1, last_job=job)


# ── what is asked for by that ──


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """What is asked for in place of "auto", and why, in words."""

    request: Request
    words: str
    is_known: bool


def resolve(
    request: Request, known: Known | None, machine: Sequence[Gpu], policy: Policy
) -> Resolved:
    """`machine` is every GPU that it has shown; before the first is known, nothing bounds the size."""
    alone = replace(request, gpu_mem_bytes=None, exclusive=True, max_util=None)
    own = "its GPU" if request.gpus == 1 else "its GPUs"
    if known is None:
        words = f"--gpu-mem auto: nothing is known of this command yet, so it has {own} alone"
        return Resolved(request=alone, words=words, is_known=False)
    runs = f"(job {known.last_job}, {count(known.runs, 'run')})"
    before = f"it used {format_bytes(known.peak_bytes)} at most before {runs}"
    wanted = ceil((known.peak_bytes * GROWTH + MARGIN_BYTES) / STEP_BYTES) * STEP_BYTES
    share = wanted
    if machine:
        share = largest_share(replace(request, exclusive=False), machine, policy)
    if share < known.peak_bytes:
        words = f"has {own} alone: {before}, and no share of a GPU is as large"
        return Resolved(request=alone, words=words, is_known=True)
    asked = replace(request, gpu_mem_bytes=min(wanted, share), exclusive=False)
    words = f"asks for {format_bytes(asked.gpu_mem_bytes)}: {before}"
    return Resolved(request=asked, words=words, is_known=True)


def note(resolved: Sequence[Resolved]) -> str | None:
    """What the one who submits them is told; of several jobs, how many there are of each kind."""
    if len(resolved) < 2:
        return resolved[0].words if resolved else None
    sizes = [one.request.gpu_mem_bytes for one in resolved if one.request.gpu_mem_bytes is not None]
    unknown = sum(not one.is_known for one in resolved)
    large = len(resolved) - len(sizes) - unknown
    parts = []
    if sizes:
        low, high = format_bytes(min(sizes)), format_bytes(max(sizes))
        span = low if low == high else f"{low} to {high}"
        parts.append(f"{_jobs(len(sizes), 'ask', 'asks')} for {span}, by what was used before")
    if unknown:
        have = _jobs(unknown, "have", "has")
        parts.append(f"{have} GPUs alone, since nothing is known of the command yet")
    if large:
        have = _jobs(large, "have", "has")
        parts.append(f"{have} GPUs alone, since more was used before than any share can be")
    return f"--gpu-mem auto: {'; '.join(parts)}"


def _jobs(number: int, do: str, does: str) -> str:
    return f"{count(number, 'job')} {does if number == 1 else do}"


# ── which command it is ──

# These only run what is named behind them.
_RUNNERS = frozenset(
    b"python pypy bash sh dash zsh ksh perl ruby julia node Rscript torchrun deepspeed accelerate uv "
    b"env nice nohup stdbuf time".split()
)
_RUNNER_MODULES = frozenset(
    b"torch.distributed.run torch.distributed.launch accelerate.commands.launch".split()
)
_SUBCOMMANDS = frozenset((b"run", b"launch"))  # of uv and accelerate
_SCRIPTS = (b".py", b".sh", b".bash", b".zsh", b".pl", b".rb", b".jl", b".R", b".js")


def program_words(argv: Sequence[bytes]) -> tuple[bytes, ...]:
    """The words that name the program: the first one and, where that only runs another, what it runs.
    `python -u train.py --lr 1` is python train.py, with whatever options.

    Nobody knows the options of every such program, so a value of one may be taken for the program
    where no script stands behind it; then the command is told from others less well, and no harm done.
    """
    program, *rest = argv
    if _name(program) not in _RUNNERS:
        return (program,)
    plain = None
    for word, behind in zip(rest, [*rest, b""][1:], strict=True):
        if _takes_text(word) or (word == b"-m" and behind not in _RUNNER_MODULES):
            return (program, word, behind)
        if word.endswith(_SCRIPTS) and not word.startswith(b"-"):
            return (program, word)
        if plain is None and _may_be_a_program(word):
            plain = word
    return (program,) if plain is None else (program, plain)


def _name(program: bytes) -> bytes:
    """python for /usr/bin/python3.11"""
    return program.rsplit(b"/", 1)[-1].rstrip(b"0123456789.")


def _takes_text(word: bytes) -> bool:
    """-c, and -lc as shells have it."""
    return word.startswith(b"-") and not word.startswith(b"--") and word.endswith(b"c")


def _may_be_a_program(word: bytes) -> bool:
    """No option, none of their numbers, no A=1 of env, and nothing that runs another itself."""
    if word.startswith(b"-") or word in _SUBCOMMANDS or b"=" in word:
        return False
    return not word.isdigit() and _name(word) not in _RUNNERS
