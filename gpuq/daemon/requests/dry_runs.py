"""What would become of a submission: judged as a true one is, and nothing of it is stored."""

import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from gpuq.core.asked.moments import words_for
from gpuq.core.asked.needs import Need, NeedState
from gpuq.core.asked.spec import Spec
from gpuq.core.gpus.gpu import Gpu
from gpuq.core.model import Snapshot, WaitingJob
from gpuq.core.scheduling.judging import Awaited, after_words
from gpuq.core.scheduling.verdict import Candidate, Verdict, judge, words
from gpuq.core.units import format_seconds
from gpuq.daemon.callers.peer import Peer
from gpuq.daemon.requests.world import World
from gpuq.daemon.store import Store
from gpuq.errors import UsageError

Answer = dict[str, Any]
MOST_JOBS = 100  # all others wait while these are judged


class DryRuns:
    def __init__(self, store: Store, world: World) -> None:
        self._store = store
        self._world = world

    async def foretell(
        self, specs: Sequence[Spec], key: str | None, note: str | None, peer: Peer
    ) -> Answer:
        """An answer to a submit that is not one: a verdict for each of its jobs and arrays."""
        if len(specs) > MOST_JOBS:
            raise UsageError(f"a dry run takes up to {MOST_JOBS} jobs or arrays, not {len(specs)}")
        living = None if key is None else self._store.asked.living(peer.uid, key)
        if key is not None and living is not None:
            said = f"nothing would be queued: {key_is_taken(key, living)}"
            none_of_it = _shown(Verdict(elements=0), (), None) | {"words": said}
            return {"dry": True, "verdict": [none_of_it], "note": note}
        await self._world.settle()
        world, now = self._world.look(), time.time()
        verdicts = judge(world, list(self._candidates(specs, peer, now)))
        told = [_told(one, world, now) for one in verdicts]
        return {"dry": True, "verdict": told, "note": note}

    def _candidates(self, specs: Sequence[Spec], peer: Peer, now: float) -> Iterator[Candidate]:
        """As they would stand in the queue: behind all that were submitted before."""
        asked = self._store.asked
        first = asked.last_id() + 1
        entries: list[range] = []
        for spec in specs:
            entries.append(range(first, first + spec.count))
            needs = [self._awaited(need, entries) for need in spec.needs]
            waits, is_skipped = _waits(spec, needs, now)
            # A class of its own, where it is the first to ask like this, is of no other job.
            class_id = asked.class_of(spec, peer.uid) or -first
            job = WaitingJob(
                id=first,
                class_id=class_id,
                request=spec.request,
                uid=peer.uid,
                user=peer.user,
                queue=spec.queue,
                tags=spec.tags,
                priority=spec.priority,
                place=first,
                time_limit_s=spec.time_limit_s,
                grace_s=spec.grace_s,
            )
            yield Candidate(
                job=job,
                elements=spec.count,
                at_once=spec.max_running,
                waits=waits,
                is_skipped=is_skipped,
            )
            first += spec.count

    def _awaited(self, need: Need, entries: Sequence[range]) -> Awaited:
        """How far that is; an entry that would be submitted with it has yet to begin."""
        if need.entry is not None:
            return Awaited(jobs=entries[need.entry], when=need.when, each=need.each)
        return self._store.waiting.foretold(need)


def _waits(spec: Spec, needs: Sequence[Awaited], now: float) -> tuple[str | None, bool]:
    """For what it would wait before its turn comes, and whether it would do so in vain."""
    if broken := [need for need in needs if need.state is NeedState.BROKEN]:
        return f"{after_words(broken[:1]).partition(':')[0]}, which cannot come any more", True
    if spec.held:
        return "held", False
    if any(need.state is NeedState.OPEN for need in needs):
        return after_words(needs), False
    return _not_yet(spec, now), False


def _not_yet(spec: Spec, now: float) -> str | None:
    begin_at = spec.begin_at if spec.begin_in_s is None else now + spec.begin_in_s
    if begin_at is not None and begin_at > now:
        moment, here = datetime.fromtimestamp(begin_at), datetime.fromtimestamp(now)
        return f"not before {words_for(moment, here)}"
    return None


def _told(verdict: Verdict, world: Snapshot, now: float) -> Answer:
    expected_at, clock = None, None
    if verdict.expected is not None:
        expected_at = now + verdict.expected.at - world.now
        clock = words_for(datetime.fromtimestamp(expected_at), datetime.fromtimestamp(now))
    gpus = world.gpus or ()
    return _shown(verdict, gpus, expected_at) | {"words": words(verdict, gpus, clock)}


def _shown(verdict: Verdict, gpus: Sequence[Gpu], expected_at: float | None) -> Answer:
    return {
        "count": verdict.elements,
        "starting": verdict.starting,
        "gpus": sorted(gpu.index for gpu in gpus if gpu.uuid in verdict.gpus),
        "gpu_uuids": list(verdict.gpus),
        "reason": verdict.reason,
        "waits_for": list(verdict.waits_for),
        "expected_start_at": expected_at,
    }


def key_is_taken(key: str, living: range) -> str:
    whose = f"job {living.start}" if len(living) == 1 else f"g{living.start}"
    return f"{whose} has the key {key!r} and has not ended"


def past_begin(specs: Sequence[Spec], now: float) -> str | None:
    """What to know of a job that was to begin at a moment that is over."""
    late_s = [now - spec.begin_at for spec in specs if spec.begin_at is not None]
    if not late_s or max(late_s) <= 0:
        return None
    return f"the moment to begin was {format_seconds(max(late_s))} ago: it starts as soon as it can"
