"""From the jobs that somebody asks for to the request that queues them.

On the start-up path of `submit` and `run`: standard library only.
"""

from __future__ import annotations

import os

from gpuq import capture, protocol
from gpuq.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    Message = dict[str, Any]


class Submitting:
    """`call` asks the daemon, `say` hears what there is to know of it."""

    def __init__(self, call: Callable[..., Message], say: Callable[[str], None]) -> None:
        self._call = call
        self._say = say

    def submit(self, jobs: Sequence[Any], group: str | None, token: str | None) -> Message:
        """The environment is sent only where the daemon has not got it yet. Asked again with the same
        token it is done once, so the one request may be repeated after a crash."""
        jobs, process = list(jobs), capture.Process()
        copies: Message = {}
        environment = capture.environment_now()
        request: Message = {
            "env_hash": environment.digest,
            "token": token or os.urandom(12).hex(),
        }
        if group is not None:
            request["group"] = group
        alike = _alike(jobs)
        if len(alike) < len(jobs):
            told = [self._entry(job, others, process, copies) for job, *others in alike]
            try:
                return self._ask("submit_alike", environment, {"jobs": told, **request})
            except UsageError as error:
                if protocol.UNKNOWN not in str(error):
                    raise
            # An older daemon is told each of them.
        told = [self._in_snapshot(capture.spec(job, process), copies) for job in jobs]
        return self._ask("submit", environment, {"jobs": told, **request})

    def _entry(
        self, job: Any, others: Sequence[Any], process: capture.Process, copies: Message
    ) -> Message:
        """A job, and those that are told with it: how often it is there, or their commands."""
        entry = self._in_snapshot(capture.spec(job, process), copies)
        if not others or others[0].get("argv") == job["argv"]:
            return entry | {"times": 1 + len(others)}
        return entry | {"argvs": [capture.words(other) for other in others]}

    def _ask(self, do: str, environment: capture.Environment, request: Message) -> Message:
        answer = self._call(do, **request)
        if answer.get("wanted") == "environment":
            answer = self._call(do, environment=environment.variables, **request)
        return self._with_note_said(answer)

    def dry_run(self, jobs: Sequence[Any]) -> Message:
        process = capture.Process()
        specs = [capture.spec(job, process) for job in jobs]
        for spec in specs:
            spec.pop("snapshot", None)  # no copy is made for what is not to run
        digest = capture.environment_now().digest
        return self._with_note_said(self._call("dry_run", jobs=specs, env_hash=digest))

    def _in_snapshot(self, spec: Message, copies: Message) -> Message:
        """Of a work tree that was to be copied: the job runs in the copy. `copies` are those that were
        taken already, by directory: jobs that are submitted together see the same state."""
        if not spec.pop("snapshot", False):
            return spec
        from gpuq.work_tree.snapshot import take

        copy = copies.get(spec["cwd"])
        if copy is None:
            copy = take(spec["cwd"], self._call("snapshots")["folder"], self._say)
            copies[spec["cwd"]] = copy
        changes = {"GPUQ_WORK_TREE": copy.top, **spec["changes"]}
        return spec | {"cwd": copy.cwd, "snapshot": copy.name, "changes": changes}

    def _with_note_said(self, answer: Message) -> Message:
        if answer.get("note"):
            self._say(answer["note"])
        return answer


# What is one job's own, or an array's, or said of each of them when it ends, or known of its command.
_OWN = ("seed", "key", "after", "array", "grid", "params", "on_start", "on_end", "gpu_mem")


def _alike(jobs: Sequence[Any]) -> list[list[Any]]:
    """Neighbours that ask the same together, and those that differ in their commands alone. Where jobs
    wait for others by their place among these each keeps its own."""
    if len(jobs) == 1 or any(job.get("after") for job in jobs):
        return [[job] for job in jobs]
    alike: list[list[Any]] = []
    before: Message = {}
    written_before = ""
    for job in jobs:
        rest = {**job, "argv": None}
        written = repr(rest)  # in which 1 is not True
        is_like = written == written_before and rest == before
        if is_like and _goes_with(alike[-1], job.get("argv")):
            alike[-1].append(job)
        else:
            alike.append([job])
        before, written_before = rest, written
    return alike


def _goes_with(jobs: Sequence[Any], argv: Any) -> bool:
    """Whether with one more of this command all of them still have the same, or each another than the
    one before it."""
    first, last = jobs[0], jobs[-1]
    if len(jobs) == 1:
        return all(first.get(name) is None for name in _OWN)
    is_same = argv == last.get("argv")
    return bool(is_same == (jobs[1].get("argv") == first.get("argv")))
