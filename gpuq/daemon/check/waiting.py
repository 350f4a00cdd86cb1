"""That nobody waits for what has happened: the rules of `check` about what jobs wait for."""

from collections.abc import Iterable, Iterator

from gpuq.core.units import count
from gpuq.daemon.check.promises import Breach
from gpuq.daemon.store.audit_needs import MiscountedRow, UnjudgedNeed


def judge_waiting(
    miscounted: Iterable[MiscountedRow], unjudged: Iterable[UnjudgedNeed]
) -> Iterator[Breach]:
    for row in miscounted:
        said, there = count(row.open_needs, "thing"), row.needs
        sentence = f"{_named(row.id, row.last_id)} to wait for {said}, and there are {there}"
        yield Breach(rule="needs_miscounted", sentence=sentence, job=row.id)
    for need in unjudged:
        on = (
            str(need.on_first)
            if need.on_first == need.on_last
            else f"{need.on_first}-{need.on_last}"
        )
        verb = "waits" if need.first == need.last else "wait"
        which = _jobs(need.first, need.last)
        sentence = f"{which} {verb} for {on}, whose end has decided that, and nobody looks at it"
        yield Breach(rule="need_unjudged", sentence=sentence, job=need.first)


def _named(first: int, last: int) -> str:
    return f"{_jobs(first, last)} {'is' if first == last else 'are'} said"


def _jobs(first: int, last: int) -> str:
    return f"job {first}" if first == last else f"jobs {first} to {last}"
