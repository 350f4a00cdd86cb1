"""All about one GPU, in lines."""

from collections.abc import Sequence
from itertools import chain

from gpuq.cli.gpu_text import BARRED, COLOURS, process_table, reserved_words
from gpuq.cli.render import DIM, GREEN, RED, YELLOW, Look, bar, memory, moment, printable
from gpuq.core.gpus.gpu_account import words_of_test
from gpuq.core.units import format_bytes, format_seconds
from gpuq.tui.data.picture import Gpu
from gpuq.tui.data.pieces import Pieces, said
from gpuq.tui.data.spans import Row

Fact = tuple[str, str, str]  # name, words, and the code of their colour
LABEL = 11  # cells


def gpu_detail(
    gpu: Gpu, tenants: Sequence[Row | None], *, now: float, width: int, unicode: bool, key: str
) -> list[Pieces]:
    """`tenants` are the jobs on it as far as they are known; `key` gives it out again, and is empty
    for who may not do that."""
    facts = [_readings(gpu), *_jobs(gpu, tenants, now), *_health(gpu, now, key)]
    if not gpu["processes"]:
        facts.append(("procs", "none to be seen", DIM))
    wrapped = (
        said(f" {name}", words, width, label=LABEL, code=code) for name, words, code in facts
    )
    return [_headline(gpu), *chain.from_iterable(wrapped), *_processes(gpu, width, unicode)]


def _headline(gpu: Gpu) -> Pieces:
    state, reason = gpu["state"], gpu["reason"]
    colour = COLOURS.get(state, "")
    words = printable(reason) if reason and state in BARRED else state
    if reason and state not in BARRED:
        words = f"{state}: {printable(reason)}"
    kind = (("  simulated", DIM),) if gpu["simulated"] else ()
    return ((f" GPU {gpu['index']}  {printable(gpu['model'])}", ""), *kind, (f"  {words}", colour))


def _readings(gpu: Gpu) -> Fact:
    used, total = gpu["memory_used_bytes"], gpu["memory_total_bytes"]
    words = [f"{bar(used, total)} {memory(used, total)}".lstrip()]
    if gpu["memory_reserved_bytes"]:
        words.append(f"{format_bytes(gpu['memory_reserved_bytes'])} kept by the driver")
    for name, unit in (("utilization_percent", "%"), ("temperature_c", "C"), ("power_w", "W")):
        if gpu[name] is not None:
            limit = f"/{gpu['power_limit_w']:.0f}" if unit == "W" and gpu["power_limit_w"] else ""
            words.append(f"{gpu[name]:.0f}{limit}{unit}")
    return ("reads", " · ".join(words), "")


def _jobs(gpu: Gpu, tenants: Sequence[Row | None], now: float) -> list[Fact]:
    known = zip(gpu["jobs"], tenants, strict=True)
    return [("job" if n == 0 else "", _job(*one, now), "") for n, one in enumerate(known)]


def _job(number: int, job: Row | None, now: float) -> str:
    if job is None:
        return str(number)
    words = f"{number} {printable(job['name'] or '')}".rstrip() + f" ({printable(job['user'])})"
    if job["started_at"] is not None:
        words += f", for {format_seconds(max(now - job['started_at'], 0.0))}"
    if job["gpu_mem_bytes"] is not None and not job.get("exclusive"):
        words += f", with {format_bytes(job['gpu_mem_bytes'])} of its memory"
    return words


def _health(gpu: Gpu, now: float, key: str) -> list[Fact]:
    lines: list[Fact] = []
    if (drained := gpu["drained"]) is not None:
        when = "" if drained["at"] is None else f", {moment(drained['at'], now)}"
        words = f"by {printable(drained['actor'])}{when}: {printable(drained['reason'] or '')}"
        words += f" · {key} gives it out again" if key else ""
        lines.append(("drained", words, YELLOW))
    if gpu["quarantine"] is not None:
        at = gpu["quarantined_at"]
        when = "" if at is None else f"{moment(at, now)}: "
        words = f"{when}{printable(gpu['quarantine'])}"
        words += f" · {key} has it tested and given out again" if key else ""
        lines.append(("set aside", words, RED))
    if gpu["under_test"] is not None:
        lines.append(("testing", printable(gpu["under_test"]), YELLOW))
    if gpu["test"] is not None:
        when = "" if gpu["tested_at"] is None else f"{moment(gpu['tested_at'], now)}: "
        good = gpu["test"].get("verdict") == "good"
        words = when + printable(words_of_test(gpu["test"]))
        lines.append(("tested", words, GREEN if good else RED))
    lines += [("warning", printable(warning), YELLOW) for warning in gpu["warnings"]]
    if gpu["locked_by"] is not None:
        lines.append(("locked", f"by {printable(gpu['locked_by'])}", YELLOW))
    lines += [("", words, YELLOW) for words in reserved_words(gpu, now)]
    return lines


def _processes(gpu: Gpu, width: int, unicode: bool) -> list[Pieces]:
    if not gpu["processes"]:
        return []
    look = Look(unicode=unicode, width=max(width - 1, 20), now=0.0)
    head, *rest = process_table([gpu], look)
    foreign = [not one["ours"] and not one.get("ignored") for one in gpu["processes"]]
    told = zip(rest, foreign, strict=True)
    return [
        ((f" {head}", DIM),),
        *(((f" {line}", YELLOW if is_foreign else ""),) for line, is_foreign in told),
    ]
