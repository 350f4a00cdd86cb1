"""What jobs are judged by when they are submitted: the GPUs, the settings, the limits that people set.

Jobs that ask the same come by the thousand, and what they are judged by changes seldom: both are looked
at once, for as long as nothing of it has changed.
"""

from collections.abc import Sequence
from typing import Any

from gpuq.config import Config
from gpuq.core.asked.spec import Spec
from gpuq.core.gpus.fitting import never_fits
from gpuq.core.gpus.gpu import Gpu
from gpuq.core.model import Limit, Request
from gpuq.core.policy import Policy
from gpuq.daemon.callers.peer import Peer
from gpuq.daemon.requests.known_gpus import KnownGpus
from gpuq.daemon.requests.queue_rules import check_limits, within_queue
from gpuq.daemon.requests.world import World
from gpuq.daemon.store import Store

MOST_KINDS = 1000  # of jobs that are remembered to fit

Kind = tuple[int, str, str, tuple[str, ...], Request]


class Grounds:
    """`known` are all GPUs that the machine has shown; `were_read`: those that there are now were."""

    def __init__(
        self, policy: Policy, known: Sequence[Gpu], limits: Sequence[Limit], *, were_read: bool
    ) -> None:
        self.policy = policy
        self.known = known
        self.were_read = were_read
        self._limits = limits
        self._fitting: set[Kind] = set()

    def trouble(self, spec: Spec, peer: Peer) -> str | None:
        """Why no GPU here can ever serve the job. NeverFits where a limit does not let it."""
        kind = (peer.uid, peer.user, spec.queue, spec.tags, spec.request)
        if kind in self._fitting:
            return None
        check_limits(spec, peer, self.policy, self._limits)
        why = never_fits(spec.request, self.known, self.policy)
        why = why or within_queue(spec, self.known, self.policy)
        if why is None:
            if len(self._fitting) >= MOST_KINDS:
                self._fitting.clear()
            self._fitting.add(kind)
        return why


class Judging:
    def __init__(self, store: Store, config: Config, world: World, machine: KnownGpus) -> None:
        self._store = store
        self._config = config
        self._world = world
        self._machine = machine
        self._of: Any = None
        self._grounds: Grounds | None = None

    def grounds(self) -> Grounds:
        """As they are now."""
        database, policy = self._store.database, self._config.policy()
        gpus = self._world.gpus
        of = gpus, database.writes("gpus"), database.writes("limits")
        known = self._grounds
        if known is None or known.policy is not policy or self._of != of:
            limits = self._store.limited.of_users_and_tags()
            every = self._machine.gpus()
            known = Grounds(policy, every, limits, were_read=gpus is not None)
            self._grounds = known
            self._of = of
        return known
