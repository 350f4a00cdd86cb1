"""Jobs as text: the list, and the sentences about one."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gpuq.cli.expected_text import clock_at, sentence, starts_at
from gpuq.cli.fold_text import first_id, ids_of, is_folded, name_of, reason_of
from gpuq.cli.render import (
    CYAN,
    DIM,
    GREEN,
    NAME_LEAST,
    RED,
    YELLOW,
    Cell,
    Column,
    Gpu,
    Job,
    Look,
    clock,
    command_line,
    ordinal,
    printable,
    rfc3339,
    tabbed,
    table,
)
from gpuq.core.units import count, format_indices, format_seconds, name_gpus

# What a job is at the moment in one letter: its substate, else its outcome, else its state.
LETTERS = {
    "held": ("H", YELLOW),
    "delayed": ("D", YELLOW),
    "backoff": ("B", YELLOW),
    "paused": ("P", YELLOW),
    "stopping": ("K", YELLOW),
    "unkillable": ("U", RED),
    "queued": ("Q", ""),
    "starting": ("S", CYAN),
    "running": ("R", GREEN),
    "succeeded": ("C", DIM),
    "failed": ("F", RED),
    "cancelled": ("X", DIM),
    "timed_out": ("T", RED),
    "out_of_memory": ("O", RED),
    "lost": ("L", RED),
    "skipped": ("N", DIM),
}

PIPE_COLUMNS = (
    "id",
    "state",
    "substate",
    "outcome",
    "name",
    "user",
    "gpus",
    "priority",
    "started",
    "ended",
    "reason",
    "command",
)
LIFE = ("queued", "starting", "running", "ended")
ORDERS: dict[str, Callable[[Job], Any]] = {
    "id": first_id,
    "priority": lambda job: job["priority"],
    "started": lambda job: job["started_at"],
    "ended": lambda job: job["ended_at"],
    "submitted": lambda job: job["submitted_at"],
    "name": lambda job: job["name"],
    "user": lambda job: job["user"],
    "state": lambda job: LIFE.index(job["state"]) if job["state"] in LIFE else len(LIFE),
    "next": lambda job: job.get("queue_place"),
}

# ── the list ──


def in_order(jobs: Sequence[Job], order: str = "id") -> list[Job]:
    """By one of ORDERS, with a leading "-" from the end; equals by id, and last those without."""
    key = ORDERS[order.removeprefix("-")]
    by_id = sorted(jobs, key=ORDERS["id"])
    known = [job for job in by_id if key(job) is not None]
    unknown = [job for job in by_id if key(job) is None]
    return sorted(known, key=key, reverse=order.startswith("-")) + unknown


def job_table(jobs: Sequence[Job], look: Look) -> list[str]:
    return table(_columns(jobs, look), jobs, look)


def _columns(jobs: Sequence[Job], look: Look) -> list[Column]:
    columns = [
        Column("ID", ids_of),
        Column("ST", letter),
        Column("NAME", lambda job: printable(name_of(job)), least=NAME_LEAST),
        Column("USER", lambda job: printable(job["user"]), unused=look.user, least=NAME_LEAST),
        Column("GPU", gpus_of, unused="-"),
        Column("QUEUE", lambda job: printable(job["queue"]), least=NAME_LEAST),
        Column("PRI", lambda job: str(job["priority"]), right=True, unused="0"),
        Column("TIME", lambda job: format_seconds(elapsed(job, look.now)), right=True, unused="-"),
        Column("LEFT", lambda job: _left_words(job, look.now), right=True, unused="-"),
        Column("PROGRESS", progress_of, right=True),
        Column("EXIT", _exit),
        Column("COMMAND / REASON", command_or_reason),
    ]
    if {job["user"] == look.user for job in jobs} == {True, False}:
        columns.insert(0, Column("", lambda job: "*" if job["user"] == look.user else ""))
    return columns


def letter(job: Job) -> Cell:
    for word in (job["substate"], job["outcome"], job["state"]):
        if word:
            return LETTERS.get(word, ("?", ""))
    return "?"


def gpus_of(job: Job) -> str:
    """Which GPUs a job has or had; how many it waits for; that the CPU has to do for it."""
    if job["gpus"]:
        return format_indices(job["gpus"])
    if job.get("cpu_fallback"):
        return "cpu"
    return f"x{job['gpu_count']}" if job["gpu_count"] else "-"


def elapsed(job: Job, now: float) -> float | None:
    if job["started_at"] is None:
        return None
    return max(float(job["ended_at"] or now) - float(job["started_at"]), 0.0)


def _left_words(job: Job, now: float) -> str:
    """What is left, or for a job that waits when it may or is expected to start."""
    if job["substate"] == "delayed" and not is_folded(job):
        return f"from {clock_at(float(job['delayed_until']), now)}"
    return starts_at(job, now) or format_seconds(left(job, now))


def left(job: Job, now: float) -> float | None:
    """What is left of its time limit, or of its wait for the next attempt. By the wall clock, and so
    for reading: what counts is the daemon's own."""
    if job["substate"] == "backoff":
        return max(float(job["delayed_until"]) - now, 0.0)
    if job["state"] != "running" or job["substate"] == "paused" or not job.get("time_limit_s"):
        return None
    ran = (elapsed(job, now) or 0.0) - float(job.get("paused_s") or 0.0)
    return max(float(job["time_limit_s"]) - ran, 0.0)


def _exit(job: Job) -> str:
    if is_folded(job):
        return ""
    if job["signal"] is not None:
        return signal_name(job["signal"])
    return str(job["exit_code"]) if job["exit_code"] else ""


def command_or_reason(job: Job) -> str:
    """Why it waits, or what it does, or of a folded group how many do what."""
    waits = job["state"] == "queued" or job["substate"] or is_folded(job)
    never_ran = job["outcome"] == "skipped"
    if (waits or never_ran) and (reason := reason_of(job)):
        return printable(reason)
    return _marks(job) + _what_differs(job) + command_of(job)


def _what_differs(job: Job) -> str:
    """ "lr=0.1 seed=2: " before a command that is the same for all elements of its array."""
    is_apart = is_folded(job) or "command" in job.get("differs_in", ())
    said = "" if is_apart or job.get("hidden") else parameters_of(job)
    return f"{printable(said)}: " if said else ""


def parameters_of(job: Job) -> str:
    """ "lr=0.1 seed=2"."""
    return named_values(job.get("parameters", {}))


def progress_of(job: Job) -> str:
    """ "61%" of a job that says so and runs; how far one came that has ended is on its own page, and
    of a group its counts tell."""
    if is_folded(job) or job["state"] == "ended":
        return ""
    progress = job.get("progress")
    return "" if progress is None else f"{int(progress * 100)}%"


def metrics_of(job: Job) -> str:
    """ "loss=0.25 acc=0.91"."""
    return named_values({name: metric_word(value) for name, value in job["metrics"].items()})


def named_values(values: Mapping[str, str]) -> str:
    """ "lr=0.1", and in quotes what could be taken for several of these: '"my loss"=3'."""
    return " ".join(f"{_word(name)}={_word(value)}" for name, value in values.items())


def _word(text: str) -> str:
    if text and not any(sign.isspace() or sign in "=\"'" for sign in text):
        return text
    import json

    return json.dumps(text, ensure_ascii=False)


def metric_word(value: Any) -> str:
    """As short as a float is that tells no less than its first six digits."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def command_of(job: Job) -> str:
    """What it runs, or that this is its owner's to know: "(bob's)"."""
    if job.get("hidden"):
        return f"({printable(job['user'])}'s)"
    return command_line(job["command"])


def _marks(job: Job) -> str:
    """ "[idle] " before the command of a job that holds its GPUs for nothing."""
    marks = {"idle": job.get("idle"), "contended": job.get("contended_now")}
    said = [word for word, is_so in marks.items() if is_so]
    return f"[{', '.join(said)}] " if said else ""


def job_row(job: Job, columns: Sequence[str] = PIPE_COLUMNS, now: float = 0.0) -> str:
    """For a pipe: the same columns always, but for those that were asked for."""
    values = column_values(now)
    return tabbed([values[name](job) for name in columns])


def chosen_table(jobs: Sequence[Job], names: Sequence[str], look: Look) -> list[str]:
    """For a terminal: these columns, whether they say something or not."""
    values = column_values(look.now) | {
        "state": lambda job: (job["state"], letter(job)[1]),
        "submitted": lambda job: _clock(job["submitted_at"]),
        "started": lambda job: _clock(job["started_at"]),
        "ended": lambda job: _clock(job["ended_at"]),
        "time": lambda job: format_seconds(elapsed(job, look.now)),
        "left": lambda job: _left_words(job, look.now),
        "command": command_of,
        "progress": progress_of,
    }
    right = ("priority", "time", "left", "index", "place", "progress")
    columns = [
        Column(
            name.upper(),
            _cell(values[name]),
            right=name in right,
            unused=None,
            least=NAME_LEAST if name in _LONG else None,
        )
        for name in names
    ]
    return table(columns, jobs, look)


_LONG = ("name", "user", "queue", "tags", "reason", "command", "cwd", "params", "metrics")


def column_values(now: float) -> dict[str, Callable[[Job], Any]]:
    """What `--columns` knows, as a pipe gets it."""
    return {
        "id": ids_of,
        "state": lambda job: job["state"],
        "substate": lambda job: job["substate"],
        "outcome": lambda job: job["outcome"],
        "exit": _exit,
        "name": name_of,
        "user": lambda job: job["user"],
        "group": lambda job: job["group"],
        "queue": lambda job: job["queue"],
        "tags": lambda job: ",".join(job["tags"]),
        "gpus": gpus_of,
        "priority": lambda job: job["priority"],
        "submitted": lambda job: rfc3339(job["submitted_at"]),
        "started": lambda job: rfc3339(job["started_at"]),
        "ended": lambda job: rfc3339(job["ended_at"]),
        "time": lambda job: _whole_seconds(elapsed(job, now)),
        "left": lambda job: _whole_seconds(left(job, now)),
        "reason": reason_of,
        "command": lambda job: command_line(job["command"]),
        "cwd": lambda job: job["cwd"],
        "index": lambda job: None if is_folded(job) else job.get("array_index"),
        "params": lambda job: "" if is_folded(job) else parameters_of(job),
        "log": lambda job: None if is_folded(job) else job["log"],
        "place": place_of,
        "progress": lambda job: None if is_folded(job) else job.get("progress"),
        "metrics": lambda job: "" if is_folded(job) else metrics_of(job),
    }


def place_of(job: Job) -> int | None:
    """Among all that may start, where that was asked for."""
    place: int | None = None if is_folded(job) else job.get("queue_place")
    return place


def _whole_seconds(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds)


def _clock(seconds: float | None) -> str | None:
    return None if seconds is None else clock(seconds)


def _cell(value: Callable[[Job], Any]) -> Callable[[Job], Cell]:
    def cell(job: Job) -> Cell:
        said = value(job)
        if isinstance(said, tuple):
            return printable(said[0]), said[1]
        return "-" if said is None else printable(str(said))

    return cell


# ── sentences ──


def greeting(job: Job, *, simulated: bool, now: float = 0.0, release: str | None = None) -> str:
    """What became of a job that was just submitted; where it is held, `release` lets it go."""
    if job["state"] in ("starting", "running"):
        return f"Job {job['id']} {job['state']}{on_gpus(job, simulated=simulated)}"
    if job["state"] == "ended":
        return farewell(job)
    queued = f"Job {job['id']} queued: {printable(job['reason'] or 'not looked at yet')}"
    if job["substate"] == "held" and release is not None:
        return f"{queued}; to let it go: {release}"
    at = starts_at(job, now)
    return queued if at is None else f"{queued}; expected start {at}"


def on_gpus(job: Job, *, simulated: bool) -> str:
    kind = "simulated GPU" if job.get("gpus_simulated", simulated) else "GPU"
    return f" on {name_gpus(job['gpus'], kind)}" if job["gpus"] else ""


def farewell(job: Job) -> str:
    """How a job ended: `Job 179 failed: exit code 1`."""
    outcome, reason = words(job["outcome"] or "ended"), printable(job["reason"] or "")
    if reason.startswith(outcome):
        return f"Job {job['id']} {reason}"
    if not reason or job["exit_code"] == 0:
        tries = f", on its {ordinal(job['attempt'])} attempt" if job["attempt"] > 1 else ""
        return f"Job {job['id']} {outcome}{tries}"
    return f"Job {job['id']} {outcome}: {reason}"


def why_lines(job: Job, look: Look, *, simulated: bool, gpus: Sequence[Gpu] = ()) -> list[str]:
    """The reason in sentences."""
    called = f"{printable(job['user'])}'s" if job.get("hidden") else printable(job["name"])
    name = f"Job {job['id']} ({called})"
    reason = printable(job["reason"] or "")
    if job["state"] == "ended":
        return [f"{farewell(job)}.", *_error_of(job), *_fallen_back(job)]
    if job["state"] == "queued":
        held = "is held" if job["substate"] == "held" else "waits"
        lines = [f"{name} {held}: {reason}.", *_given_way(job), *_fallen_back(job)]
        if job["place"] is not None and max(job["place"], job.get("place_of") or 1) > 1:
            lines.append(f"It is the {ordinal(job['place'])} of those that ask for the same.")
        expected = sentence(job, look.now)
        return lines if expected is None else [*lines, expected]
    since = format_seconds(elapsed(job, look.now))
    return [
        f"{name} is {words(job['substate'] or job['state'])}"
        f"{on_gpus(job, simulated=simulated)}, for {since} now{f': {reason}' if reason else ''}.",
        *_given_way(job),
        *_fallen_back(job),
        *_gpu_sentences(job),
        *_gpu_troubles(job, gpus),
    ]


def _error_of(job: Job) -> list[str]:
    """What its program said, as far as the reader may know, and where the rest stands."""
    if job["outcome"] not in ("failed", "timed_out", "out_of_memory", "lost"):
        return []
    from gpuq.core.results.said import is_from_output

    error = job.get("error_signature")
    said = [f"It said: {printable(error)}."] if is_from_output(error) else []
    has_run = job["started_at"] is not None and job.get("log")
    return [*said, f"What it wrote: gpuq logs {job['id']}"] if has_run else said


def _given_way(job: Job) -> list[str]:
    """That it was begun before, and to whom it gave way then, is in its attempts."""
    times = job.get("preemptions")
    return [f"It gave way {count(times, 'time')}. To whom: gpuq show {job['id']}."] if times else []


def _fallen_back(job: Job) -> list[str]:
    if not job.get("cpu_fallback"):
        return []
    gpus, waited = count(job["cpu_fallback"]["gpus"], "GPU"), format_seconds(job["cpu_after_s"])
    if job["state"] == "ended":
        used_it = job["started_at"] is not None
        return [f"It had waited {waited} for {gpus} and made do with the CPU."] if used_it else []
    return [
        f"It waited {waited} for {gpus} and makes do with the CPU now. To ask for them again: "
        f"gpuq requeue {job['id']}."
    ]


def _gpu_troubles(job: Job, gpus: Sequence[Gpu]) -> list[str]:
    """What is said against the GPUs that it has."""
    held = [gpu for gpu in gpus if gpu["uuid"] in job["gpu_uuids"]]
    told = [gpu for gpu in held if gpu["state"] in ("lost", "quarantined", "drained")]
    return [f"GPU {gpu['index']}: {printable(gpu['reason'] or gpu['state'])}." for gpu in told]


def _gpu_sentences(job: Job) -> list[str]:
    """What is not as it should be with a running job and its GPUs."""
    lines = []
    if job.get("idle"):
        since = clock(job["idle_since_at"])
        lines.append(f"It holds its GPUs and has computed nothing since {since}.")
    if job.get("contended"):
        verb = "is" if job["contended_now"] else "was"
        lines.append(f"Somebody outside gpuq {verb} there too: {printable(job['contended_by'])}.")
    if over := job.get("over_memory"):
        lines.append(f"{over[:1].upper()}{over[1:]}.")
    lines += [f"The driver told of {printable(told)}." for told in job.get("gpu_errors", ())]
    return lines


def words(word: str) -> str:
    """ "timed out" for timed_out."""
    return word.replace("_", " ")


def signal_name(number: int) -> str:
    import signal

    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
