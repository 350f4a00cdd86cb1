"""What can be done to jobs, as deeds: the words are those of the command line, and so is what is said
of how it went."""

from collections.abc import Callable, Sequence
from typing import Any

from gpuq.cli import change, kill, pause
from gpuq.cli.change import Sentences
from gpuq.cli.fold_text import together
from gpuq.cli.job_text import signal_name
from gpuq.cli.render import Job
from gpuq.client import Client
from gpuq.core.units import count, format_spans, merged
from gpuq.tui.deeds.deed import Deed

Spans = Sequence[range]
MOST_SENTENCES = 3  # of what came of a deed; beyond them it is counted


def kill_jobs(spans: Spans, signal: int | None = None) -> Deed:
    """They are ended, each with its own grace; or only sent a signal."""
    jobs = named(spans)
    options = [] if signal is None else ["--signal", signal_name(signal)]
    return Deed(
        words=["kill", jobs, *options],
        ask=lambda client: client.kill([jobs], signal=signal),
        said=lambda done: _said(done, lambda run: kill.sentence(run, signal, tells_undo=False)),
        failed=lambda done: any(run["done"] == "not_running" for run in done),
        can_undo=lambda done: bool(cancelled(done)),
    )


def undo_kill(spans: Spans) -> Deed:
    """Of these jobs; of none: of the caller's last kill."""
    jobs = [named(spans)] if spans else []
    return _changed(["undo", *jobs], lambda client: client.undo(jobs), change.UNDO)


def hold_jobs(spans: Spans) -> Deed:
    jobs = named(spans)
    return _changed(["hold", jobs], lambda client: client.hold([jobs]), change.HOLD)


def release_jobs(spans: Spans) -> Deed:
    jobs = named(spans)
    return _changed(["release", jobs], lambda client: client.release([jobs]), change.RELEASE)


def requeue_jobs(spans: Spans) -> Deed:
    jobs = named(spans)
    return _changed(["requeue", jobs], lambda client: client.requeue([jobs]), change.REQUEUE)


def set_priority(spans: Spans, number: int) -> Deed:
    jobs = named(spans)
    return _changed(
        ["priority", str(number), jobs],
        lambda client: client.set_priority([jobs], number),
        change.PRIORITY,
    )


def move_jobs(spans: Spans, before: int) -> Deed:
    jobs = named(spans)
    return _changed(
        ["move", jobs, "--before", str(before)],
        lambda client: client.move([jobs], before=before),
        change.MOVE,
    )


def pause_jobs(spans: Spans, *, off: bool = False) -> Deed:
    jobs = named(spans)
    return Deed(
        words=["resume" if off else "pause", jobs],
        ask=lambda client: client.resume([jobs]) if off else client.pause([jobs]),
        said=lambda done: _said(done, lambda run: pause.sentence(run, off=off)),
        failed=lambda done: any(run["done"] == "not_running" for run in done),
    )


def drain(reason: str | None) -> Deed:
    """None: jobs are started again."""
    return Deed(
        words=["drain", "--off"] if reason is None else ["drain", "-m", reason],
        ask=lambda client: client.drain(reason),
        said=pause.drain_sentence,
    )


def named(spans: Spans) -> str:
    """As one request takes them, however many: "12-18,20"."""
    return format_spans(merged(spans))


def cancelled(done: Sequence[Job]) -> list[range]:
    """Of what a kill did, those that an undo brings back."""
    return [range(run["id"], run["last_id"] + 1) for run in done if run["done"] == "cancelled"]


def _changed(words: Sequence[str], ask: Callable[[Client], Any], sentences: Sentences) -> Deed:
    return Deed(
        words=words,
        ask=ask,
        said=lambda done: _said(done, lambda run: change.sentence(run, sentences)),
        failed=lambda done: any(run["done"] == "refused" for run in done),
    )


def _said(done: Sequence[Job], sentence: Callable[[Job], str]) -> str:
    alike = together(done)
    if len(alike) <= MOST_SENTENCES:
        return "; ".join(map(sentence, alike))
    counts: dict[str, int] = {}
    for run in done:
        word = str(run["done"]).replace("_", " ")
        counts[word] = counts.get(word, 0) + run["last_id"] - run["id"] + 1
    told = ", ".join(f"{number} {word}" for word, number in counts.items())
    first = next((run for run in alike if run["done"] == "refused"), alike[0])
    return f"{count(sum(counts.values()), 'job')}: {told}; {sentence(first)}"
