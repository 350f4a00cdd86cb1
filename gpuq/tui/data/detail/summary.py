"""All about one job, as the lines of a pane of some width: first what is asked first, then all else
that `gpuq show` says, in its words."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gpuq.cli.expected_text import expected_start, sentence
from gpuq.cli.job_page import end_of, gpu_use, job_fields, label
from gpuq.cli.job_text import (
    command_of,
    elapsed,
    farewell,
    left,
    letter,
    metrics_of,
    on_gpus,
    signal_name,
    why_lines,
    words,
)
from gpuq.cli.render import (
    DIM,
    RED,
    Look,
    bar,
    command_line,
    moment,
    printable,
)
from gpuq.core.results.said import is_from_output
from gpuq.core.units import count, format_bytes, format_indices, format_seconds
from gpuq.tui.data.pieces import BOLD, Pieces, facts, said, sentences

Job = Mapping[str, Any]
LABEL = 14  # cells
BAR_CELLS = 10
# What the lines above the other fields say already.
SAID_ABOVE = (
    *("job", "state", "reason", "expected_start", "command", "cwd", "user", "tags", "gpus"),
    *("submitted_at", "started_at", "ended_at", "progress", "metrics", "pid", "log", "hidden"),
    *("time_limit_s", "error_signature", "last_id"),
)
_LABELS_ABOVE = frozenset(map(label, SAID_ABOVE))


# ── the first lines ──


def head(job: Job, now: float, room: int) -> list[Pieces]:
    """What it does, since when and where, and what it runs."""
    lines = facts([_state(job), *((text, "") for text in _times(job, now))], room)
    lines += _progress(job, room)
    lines += said("cmd", command_of(job), room)
    if job.get("cwd"):
        lines += said("cwd", job["cwd"], room)
    if job.get("log"):
        lines += said("log", job["log"], room)
    if job["tags"]:
        lines += said("tags", ", ".join(job["tags"]), room)
    return lines


def _state(job: Job) -> tuple[str, str]:
    cell = letter(job)
    code = cell[1] if isinstance(cell, tuple) else ""
    if job["state"] == "ended":
        return farewell(job).removeprefix(f"Job {job['id']} "), code
    word = words(job["substate"] or job["state"])
    if job["state"] == "queued":
        return word, code or BOLD
    return f"{word.upper()}{on_gpus(job, simulated=False)}{_share(job)}", code or BOLD


def _share(job: Job) -> str:
    """ " (shared, 24G)" """
    if not job["gpus"] or job.get("exclusive", True) or job["gpu_mem_bytes"] is None:
        return ""
    return f" (shared, {format_bytes(job['gpu_mem_bytes'])})"


def _times(job: Job, now: float) -> Iterator[str]:
    ran = elapsed(job, now)
    if job["state"] == "queued":
        yield f"queued {moment(job['submitted_at'], now)}"
        yield _needs(job)
        if job["reason"]:
            yield job["reason"]
        if job.get("expected_start") is not None and (start := expected_start(job, now)):
            yield f"starts {start}"
    elif job["state"] == "ended":
        if ran is not None:
            simulated = "simulated " if job.get("gpus_simulated") else ""
            where = f" on {simulated}GPU {format_indices(job['gpus'])}" if job["gpus"] else ""
            yield f"ran {format_seconds(ran)}{where}"
        yield f"ended {moment(job['ended_at'], now)}"
    else:
        if job["reason"]:
            yield job["reason"]
        if ran is not None:
            yield f"started {moment(job['started_at'], now)}"
            yield format_seconds(ran)
    if job["time_limit_s"]:
        rest = left(job, now)
        still = (
            "" if rest is None or job["state"] != "running" else f", {format_seconds(rest)} left"
        )
        yield f"limit {format_seconds(job['time_limit_s'])}{still}"
    if job.get("pid") and job["state"] == "running":
        yield f"pid {job['pid']}"


def _needs(job: Job) -> str:
    """ "needs 2 GPUs ≥60G", "needs 1 GPU, 8G of it" """
    if not job["gpu_count"]:
        return f"needs {count(job.get('cpus', 1), 'CPU')}"
    wanted = f"needs {count(job['gpu_count'], 'GPU')}"
    if job["gpu_mem_bytes"] is None:
        return wanted
    size = format_bytes(job["gpu_mem_bytes"])
    return f"{wanted} ≥{size}" if job.get("exclusive") else f"{wanted}, {size} of each"


def _progress(job: Job, room: int) -> list[Pieces]:
    """How far it says it is, and what it measured of itself."""
    parts = []
    if job["progress"] is not None:
        by = ", by the bar in its log" if job.get("progress_from") == "log" else ""
        full = bar(job["progress"], 1.0, BAR_CELLS)
        parts.append((f"{full} {job['progress'] * 100:.3g} %{by}", ""))
    if job["metrics"]:
        parts.append((metrics_of(job), ""))
    return facts(parts, room)


# ── the rest ──


def rest(job: Job, now: float, room: int) -> list[Pieces]:
    """Of a job of which all is known: why, each attempt, every other field, the line that would submit
    it again."""
    fields = dict(job_fields(dict(job), now))
    hidden = [fields["hidden"]] if "hidden" in fields else []
    lines = sentences([*hidden, *_why(job, now)], room)
    for attempt in reversed(job["attempts"]):
        lines += _attempt(attempt, now, room)
    wide = min(LABEL, max(room // 3, 6))
    for name, text in fields.items():
        if name not in _LABELS_ABOVE:
            lines += said(f"{name:<{wide - 1}.{wide - 1}} ", text, room, label=wide)
    if not job.get("hidden"):
        lines += said("again ", _again(job), room, label=wide)
    return lines


def _why(job: Job, now: float) -> list[str]:
    """The sentences beyond the first, which the head has in fewer words."""
    look, known = Look(now=now), sentence(job, now)
    behind = why_lines(dict(job), look, simulated=False)[1:]
    return [line for line in behind if line != known]


def _attempt(attempt: Job, now: float, room: int) -> list[Pieces]:
    began, has_ended = attempt["started_at"], attempt["ended_at"] is not None
    end = _end(attempt) if has_ended else attempt.get("unkillable") or "goes on"
    bad = RED if has_ended and attempt["outcome"] not in ("succeeded", "cancelled") else ""
    number = f"attempt {attempt['attempt']}"
    lines = said(f"{number} ", end, room, label=len(number) + 1, code=bad)
    parts = [] if began is None else [f"{moment(began, now)}, {_time(attempt, now)}"]
    parts += [f"GPU {format_indices(attempt['gpus'])}"] if attempt["gpus"] else []
    use = gpu_use(attempt)
    parts += [use] if use else []
    parts += [f"{what} {format_bytes(size)}" for what, size in _memory(attempt) if size is not None]
    if attempt["user_s"] is not None:
        parts.append(f"CPU {format_seconds(attempt['user_s'] + (attempt['system_s'] or 0.0))}")
    lines += [[("  ", ""), *line] for line in facts([(part, "") for part in parts], room - 2)]
    error = attempt.get("error_signature")
    if is_from_output(error):
        lines += said("  said", f" {error}", room, label=6)
    return lines


def _end(attempt: Job) -> str:
    """With the code or the signal, where its reason does not name it."""
    told, outcome = end_of(attempt), words(attempt["outcome"])
    told = told if told.startswith(outcome) else f"{outcome}: {told}"
    code = attempt["exit_code"]
    if code is not None and f"exit code {code}" not in told and attempt["outcome"] != "succeeded":
        return f"{told} (exit code {code})"
    if attempt["signal"] is not None and (name := signal_name(attempt["signal"])) not in told:
        return f"{told} ({name})"
    return told


def _time(attempt: Job, now: float) -> str:
    return format_seconds(elapsed(attempt, now))


def _memory(attempt: Job) -> Sequence[tuple[str, int | None]]:
    if attempt.get("memory_peak_bytes") is not None:
        return [("memory peak", attempt["memory_peak_bytes"])]
    return [("largest process", attempt["peak_rss_bytes"])]


def _again(job: Job) -> str:
    from gpuq.cli.submit_again import left_out, submit_line

    without = "; ".join(f"without {what}" for what in left_out(dict(job)))
    line = command_line(submit_line(dict(job)))
    return f"{line}  ({without})" if without else line


def waiting_for_answer(trouble: str | None, room: int) -> list[Pieces]:
    if trouble is not None:
        return sentences([trouble], room, RED)
    return [[("…", DIM)]]


def title(job: Job) -> Pieces:
    """What it is called and whose it is."""
    return [
        (f"{job['id']} {printable(job['name'])}".rstrip(), BOLD),
        (f"  {printable(job['user'])}", ""),
    ]
