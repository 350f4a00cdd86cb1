"""What a submission is to wait for: the jobs that it names, found before anything is stored.

Only jobs that are there can be named, and earlier entries of the same submission, so nothing ever waits
for itself, by however long a way.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from gpuq.core.asked.needs import Need, When
from gpuq.core.asked.spec import Spec
from gpuq.core.asked.wire_fields import read_list
from gpuq.core.scheduling.judging import stranded_words
from gpuq.core.units import count
from gpuq.daemon.callers.peer import Peer
from gpuq.daemon.requests.refs import References
from gpuq.daemon.store.awaited import Waiting
from gpuq.daemon.store.connection import Row
from gpuq.daemon.store.found import Found
from gpuq.errors import NothingMatched, UsageError

MOST_NEEDS = 1000  # spans of jobs, of one entry
MOST_NEEDS_OF_ALL = 20_000  # of one submission: each is looked up, and all others wait meanwhile
MOST_TOLD = 20  # of the jobs that somebody ends


class Needing:
    """Reads `after`: [{"jobs": "12-18,20", "when": "ok", "each": false} or {"entry": 0, ...}, ...]."""

    def __init__(self, found: Found) -> None:
        self._found = found
        self._refs = References(found)

    def read(
        self, wire: Mapping[str, Any], spec: Spec, before: Sequence[Spec], peer: Peer
    ) -> tuple[Need, ...]:
        """The needs of one entry; `before` are the entries before it. NothingMatched names jobs that
        are not there, UsageError what else is wrong."""
        named = read_list(wire, "after")
        _check_spans(named)
        needs: list[Need] = []
        for one in named:
            if not isinstance(one, dict):
                raise UsageError(f"after: {one!r} is no object")
            needs += self._of_entry(one, spec, before) or self._of_jobs(one, spec, peer)
        return tuple(dict.fromkeys(needs))

    def _of_entry(
        self, one: Mapping[str, Any], spec: Spec, before: Sequence[Spec]
    ) -> list[Need] | None:
        entry = one.get("entry")
        if entry is None:
            return None
        if not isinstance(entry, int) or isinstance(entry, bool) or not 0 <= entry < len(before):
            raise UsageError(
                f"after: {entry!r} is no entry before this one: they count from 0, and it is "
                f"{len(before)}"
            )
        each = _each(one, f"entry {entry}", before[entry].count, spec.count)
        return [Need(entry=entry, when=_when(one), each=each)]

    def _of_jobs(self, one: Mapping[str, Any], spec: Spec, peer: Peer) -> list[Need]:
        named = one.get("jobs")
        if not isinstance(named, str) or not named:
            raise UsageError(f"after: {named!r} names no job: write it like 12-18,20, @ or g12")
        spans = self._refs.spans([named], peer)
        last = self._found.last_id() or 0
        for span in spans:
            is_one = span.stop - 1 == span.start
            if span.stop - 1 > last or not (
                self._found.has(span.start) if is_one else self._found.count([span])
            ):
                raise _nothing_to_wait_for(named, span, last)
        if one.get("each") and len(spans) > 1:
            raise UsageError(
                f"after: {named} are not one run of jobs, so which element is to wait for which? "
                "Name one array, or leave out each"
            )
        there = self._found.count(spans) if one.get("each") else 0
        each = _each(one, named, there, spec.count)
        return [Need(jobs=span, when=_when(one), each=each) for span in spans]


def stranded_by(
    waiting: Waiting,
    done: Sequence[Mapping[str, Any]],
    rows: Sequence[Row],
    *,
    foreseen: bool = False,
) -> list[str]:
    """Who waits for jobs that are to end now, and cannot start after that, in sentences; of very many
    only the first. `done` says to each of the rows what was done, or (`foreseen`) what would be."""
    ending = [
        range(row["id"], row["last_id"] + 1)
        for row, answer in zip(rows, done, strict=True)
        if answer["done"] in ("cancelled", "stopping", "killing")
    ]
    sentences = []
    for jobs in ending[:MOST_TOLD]:
        left = [
            span
            for span in waiting.waiting_for(jobs, to_succeed=True)
            if not any(span[0] in other and span[-1] in other for other in ending)
        ]
        if left:
            sentences.append(stranded_words(jobs, left, "would" if foreseen else "will"))
    return sentences


def check_number(needs: int) -> None:
    """Of one submission; before the rest of it is looked up."""
    if needs > MOST_NEEDS_OF_ALL:
        raise UsageError(
            f"after: these jobs wait for more than {MOST_NEEDS_OF_ALL} spans of jobs: submit fewer "
            "of them at once, or name ranges. Nothing was queued."
        )


def _check_spans(named: Sequence[Any]) -> None:
    """Before anything is looked up."""
    spans = sum(
        str(one.get("jobs")).count(",") + 1 if isinstance(one, dict) else 1 for one in named
    )
    if spans > MOST_NEEDS:
        raise UsageError(f"a job waits for {spans} spans of jobs: name up to {MOST_NEEDS}")


def _when(one: Mapping[str, Any]) -> When:
    said = one.get("when") or When.OK.value
    try:
        return When(said)
    except ValueError:
        words = ", ".join(When)
        raise UsageError(f"after: {said!r} is none of {words}") from None


def _each(one: Mapping[str, Any], named: str, there: int, wanted: int) -> bool:
    """Does each element wait for its own? To a single job that is nothing special."""
    each = one.get("each") or False
    if not isinstance(each, bool):
        raise UsageError(f"after: each is true or false, not {each!r}")
    if each and there != wanted:
        raise UsageError(
            f"after: {named} are {count(there, 'job')} and these are {wanted}: each can wait for its "
            "own only where there are as many. Leave out each to wait for all of them"
        )
    return each and wanted > 1


def _nothing_to_wait_for(named: str, span: range, last: int) -> NothingMatched:
    which = str(span.start) if span.stop - 1 == span.start else f"{span.start}-{span.stop - 1}"
    return NothingMatched(
        f"--after {named}: of {which} not all were ever submitted (the last job is {last}), and only "
        "what is there can be waited for. Nothing was queued."
        if span.stop - 1 > last
        else f"--after {named}: nothing is known of {which} any more. Nothing was queued."
    )
