"""What a named queue, and limits, say of a job when it is submitted."""

from collections.abc import Sequence
from dataclasses import replace

from gpuq.core.asked.spec import Spec
from gpuq.core.gpus.fitting import never_fits
from gpuq.core.gpus.gpu import Gpu
from gpuq.core.model import Limit, WaitingJob
from gpuq.core.policy import Policy
from gpuq.core.scheduling.limits import more_than_allowed
from gpuq.core.scheduling.queues import (
    bar_words,
    find_queue,
    gpus_of,
    named_queue,
    require_open,
    time_limit_in,
)
from gpuq.daemon.callers import names
from gpuq.daemon.callers.peer import Peer
from gpuq.errors import NeverFits


async def groups_in_queues(policy: Policy, peer: Peer) -> frozenset[str]:
    """Those of the groups that queues are for which the caller is in."""
    words = {word[1:] for queue in policy.queues for word in queue.users if word.startswith("@")}
    return frozenset([word for word in words if await names.groups.get(word) in peer.groups])


def in_queue(spec: Spec, policy: Policy, peer: Peer, groups: frozenset[str]) -> Spec:
    """The job with what its queue gives it. Raises where there is no such queue, where the caller may
    not use it, and where the job asks for more time than it gives."""
    queue = named_queue(spec.queue, policy)
    if queue is None:
        return spec
    if not peer.is_admin:
        require_open(queue, peer.user, groups)
    return replace(spec, time_limit_s=time_limit_in(queue, spec.time_limit_s))


def check_limits(spec: Spec, peer: Peer, policy: Policy, limits: Sequence[Limit]) -> None:
    """NeverFits where the job alone is more than one of its limits allows."""
    job = WaitingJob(
        id=0,
        class_id=0,
        request=spec.request,
        uid=peer.uid,
        user=peer.user,
        queue=spec.queue,
        tags=spec.tags,
    )
    if (never := more_than_allowed(job, policy, limits)) is not None:
        raise NeverFits(f"the job can never start: it {never}. Nothing was queued.")


def within_queue(spec: Spec, machine: Sequence[Gpu], policy: Policy) -> str | None:
    """Why no GPU that its queue may use can serve the job; None where one can."""
    queue = find_queue(spec.queue, policy) if spec.queue else None
    if queue is None or not queue.gpus or not spec.request.gpus:
        return None
    if never_fits(spec.request, gpus_of(queue, machine), policy) is None:
        return None
    return f"--gpus {spec.request.gpus} can never start in this queue: {bar_words(queue)}"
