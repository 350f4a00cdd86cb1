"""From the jobs that somebody asks for to the request that queues them.

On the start-up path of `submit` and `run`: standard library only.
"""

from __future__ import annotations

import os

from gpuq import capture

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
        process = capture.Process()
        environment = capture.environment()
        copies: Message = {}
        request: Message = {
            "jobs": [self._in_snapshot(capture.spec(job, process), copies) for job in jobs],
            "env_hash": capture.digest(environment),
            "token": token or os.urandom(12).hex(),
        }
        if group is not None:
            request["group"] = group
        answer = self._call("submit", **request)
        if answer.get("wanted") == "environment":
            answer = self._call("submit", environment=environment, **request)
        return self._with_note_said(answer)

    def dry_run(self, jobs: Sequence[Any]) -> Message:
        process = capture.Process()
        specs = [capture.spec(job, process) for job in jobs]
        for spec in specs:
            spec.pop("snapshot", None)  # no copy is made for what is not to run
        digest = capture.digest(capture.environment())
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
