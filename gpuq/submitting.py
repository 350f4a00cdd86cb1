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
        told = [self._in_snapshot(capture.spec(job, process), copies) for job, _ in alike]
        if len(alike) < len(jobs):
            times = [
                spec | {"times": number} for spec, (_, number) in zip(told, alike, strict=True)
            ]
            try:
                return self._ask("submit_alike", environment, {"jobs": times, **request})
            except UsageError as error:
                if protocol.UNKNOWN not in str(error):
                    raise
            # An older daemon is told each of them.
            told = [self._in_snapshot(capture.spec(job, process), copies) for job in jobs]
        return self._ask("submit", environment, {"jobs": told, **request})

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


# What is one job's own, or an array's, or said of each of them when it ends.
_OWN = ("seed", "key", "after", "array", "grid", "params", "on_start", "on_end")


def _alike(jobs: Sequence[Any]) -> list[tuple[Any, int]]:
    """Neighbours that ask the same once, and how often. Where jobs wait for others by their place
    among these each keeps its own."""
    if any(job.get("after") for job in jobs):
        return [(job, 1) for job in jobs]
    alike: list[tuple[Any, int]] = []
    before, times = None, 0
    for job in jobs:
        if job is before or (job == before and repr(job) == repr(before)):  # 1 is not True
            times += 1
            continue
        if times:
            alike += _repeated(before, times)
        before, times = job, 1
    return alike + (_repeated(before, times) if times else [])


def _repeated(job: Any, times: int) -> list[tuple[Any, int]]:
    if any(job.get(name) is not None for name in _OWN):
        return [(job, 1)] * times
    return [(job, times)]
