"""Where a runner is among the control groups, and where its jobs are born. Standard library only.

A job has to be born in the group, since nobody could put all of it there later. So its runner waits in
there, and leaves when the job has lived for some milliseconds: what ends the whole group must not end
its runner. A job that is over sooner costs no move at all.
"""

from __future__ import annotations

import os
import time

from gpuq.daemon.linux.cgroup import Leaf

BRIEF_S = 0.02


class Place:
    """`home` is where a runner came from. Without a group for its jobs it has nowhere to go."""

    def __init__(self, leaf: Leaf | None, home: str | None) -> None:
        self._leaf = leaf
        self._home = home
        self._is_inside = leaf is not None
        self._leave_at = 0.0
        # One that counts memory goes on counting where one job left off.
        self.counts_memory = leaf is not None and os.path.exists(f"{leaf.path}/memory.events")

    @classmethod
    def make(cls, root: str | None, name: str, home: str | None) -> Place:
        """A new group, where one can be had, with the runner in it. To enter can take the kernel ten
        milliseconds, so this is done while nobody waits."""
        leaf = Leaf.make(root, name) if root else None
        if leaf is not None and not leaf.enter():
            leaf.remove()
            leaf = None
        return cls(leaf, home)

    @property
    def path(self) -> str | None:
        return None if self._leaf is None else self._leaf.path

    @property
    def is_ready(self) -> bool:
        """Is a job that is started now born in the group?"""
        return self._leaf is None or self._is_inside

    def job_begins(self) -> None:
        self._leave_at = time.monotonic() + BRIEF_S

    def leave_in_s(self) -> float | None:
        """In how many seconds the runner is to `leave`; None where it need not."""
        return max(self._leave_at - time.monotonic(), 0.0) if self._is_inside else None

    def leave(self) -> None:
        if self._leaf is not None and self._is_inside:
            self._is_inside = not self._leaf.leave(self._home)

    def come_back(self) -> bool:
        """For another job. The one before must be known to have ended: nobody ends or freezes its
        group any more."""
        if self._leaf is not None and not self._is_inside:
            self._is_inside = self._leaf.enter()
        return self.is_ready

    def kill_job(self) -> None:
        """All that is in the group but the runner, at one stroke, where it can be had."""
        self.leave()
        if self._leaf is not None and not self._is_inside:
            self._leaf.kill()

    def is_bare(self) -> bool:
        """Is nobody in the group but the runner itself, no other group below it, and could it be
        entered?"""
        if self._leaf is None:
            return True
        if self._is_inside:
            return self._leaf.holds_only([os.getpid()])
        return self._leaf.holds_only([]) and not self._leaf.is_frozen()

    def memory_group(self) -> Leaf | None:
        """Which one counts the memory of the job."""
        return self._leaf if self.counts_memory else None

    def give_up(self) -> None:
        """The runner goes home, and the group with it."""
        self.leave()
        self.remove()

    def remove(self) -> None:
        """The group, if nobody is in it."""
        if self._leaf is not None:
            self._leaf.remove()
