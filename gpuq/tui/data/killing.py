"""What a kill is about, as its dialog tells it: jobs that are settled when it opens, and how they are
by now. Which jobs those are does not change any more, whatever rows come, go and change places."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gpuq.cli.fold_text import name_of, span_of
from gpuq.cli.job_text import elapsed, words
from gpuq.cli.render import printable
from gpuq.core.units import count, format_seconds, format_spans
from gpuq.tui.data.listing.marks import Marks
from gpuq.tui.data.spans import Row, Rows

RUNS = ("starting", "running")
BEING_ENDED = ("stopping", "unkillable")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Jobs of one row as they were when the dialog opened."""

    jobs: range
    name: str
    user: str
    state: str
    attempt: int

    @property
    def ids(self) -> str:
        return format_spans([self.jobs])


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """How it is by now. `done`: what y would do; `otherwise`: in what it is not as it was, or ""."""

    state: str
    done: str
    otherwise: str


def settle(rows: Rows, spans: Sequence[range]) -> tuple[Target, ...]:
    """Those of the jobs that have not ended: what runs comes first, for that is lost."""
    found = [row for span in spans for row in parts_of(rows, span)]
    living = [row for row in found if row["state"] != "ended"]
    living.sort(key=lambda row: (row["state"] not in RUNS, row["id"]))
    return tuple(map(_target, living))


def parts_of(rows: Rows, jobs: range) -> list[Row]:
    """The rows that hold any of these jobs, as much of each as lies among them."""
    chosen = Marks()
    chosen.add([jobs])
    return list(chosen.rows(rows))


def spans_of(targets: Iterable[Target]) -> tuple[range, ...]:
    return tuple(sorted((target.jobs for target in targets), key=lambda span: span.start))


def number_of(targets: Iterable[Target]) -> int:
    return sum(len(target.jobs) for target in targets)


def tell(target: Target, rows: Rows, now: float, undo_key: str) -> Told:
    """`undo_key`: what the key that undoes a cancel is called."""
    parts = parts_of(rows, target.jobs)
    missing = len(target.jobs) - sum(map(_size, parts))
    if not parts:
        return Told(state="no longer in the list", done="", otherwise="gone meanwhile")
    is_one = len(target.jobs) == 1
    states = [_state(parts[0], now)] if is_one else _counted(parts)
    states += [f"{missing} no longer in the list"] * bool(missing)
    done = dict.fromkeys(filter(None, (_done(row, undo_key) for row in parts)))
    return Told(state=", ".join(states), done="; ".join(done), otherwise=_otherwise(target, parts))


def rest_words(targets: Sequence[Target], rows: Rows) -> str:
    """ "and 37 more: 30 queued, 7 running", of those that find no line."""
    parts = [row for target in targets for row in parts_of(rows, target.jobs)]
    return f"and {number_of(targets)} more: {', '.join(_counted(parts))}"


def others_words(targets: Sequence[Target]) -> list[str]:
    """That they are left alone, for each user whose they are."""
    by_user: dict[str, list[range]] = {}
    for target in targets:
        by_user.setdefault(target.user, []).append(target.jobs)
    return ["left alone: " + forbidden(spans, user, "kill") for user, spans in by_user.items()]


def may_change(user: str, you: Mapping[str, Any]) -> bool:
    """`you` is as the daemon tells the reader who that is; empty: it has not told yet."""
    return not you or you["is_admin"] or user == you["user"]


def why_not_theirs(rows: Iterable[Row], you: Mapping[str, Any], verb: str) -> str | None:
    """Why that may not be done to these jobs: some are others'."""
    others = [row for row in rows if not may_change(row["user"], you)]
    if not others:
        return None
    first = [row for row in others if row["user"] == others[0]["user"]]
    return forbidden([span_of(row) for row in first], first[0]["user"], verb)


def forbidden(spans: Sequence[range], user: str, verb: str) -> str:
    """As the daemon says it to who asks all the same."""
    ids = format_spans(sorted(spans, key=lambda span: span.start))
    is_one = ids.isdecimal()
    noun, belongs, its, it = (
        ("job", "belongs", "its", "it") if is_one else ("jobs", "belong", "their", "them")
    )
    who = printable(user)
    return f"{noun} {ids} {belongs} to {who}; only {its} owner or an admin may {verb} {it}"


def _target(row: Row) -> Target:
    return Target(
        jobs=span_of(row),
        name=printable(name_of(row) if row["id"] == row["last_id"] else row["name"]),
        user=row["user"],
        state=row["state"],
        attempt=row["attempt"],
    )


def _size(row: Row) -> int:
    return len(span_of(row))


def _word(row: Row) -> str:
    return words(row["substate"] or row["outcome"] or row["state"])


def _state(row: Row, now: float) -> str:
    if row["state"] not in RUNS or row["substate"] in BEING_ENDED:
        return _word(row)
    since = f" {format_seconds(elapsed(row, now))}" if row["started_at"] is not None else ""
    return f"{_word(row).upper()}{since}"


def _counted(parts: Iterable[Row]) -> list[str]:
    counts: Counter[str] = Counter()
    for row in parts:
        counts[_word(row)] += _size(row)
    return [f"{number} {word}" for word, number in counts.items()]


def _done(row: Row, undo_key: str) -> str:
    if row["state"] == "ended":
        return ""
    if row["state"] == "queued":
        return f"cancelled ({undo_key} undoes)"
    return f"TERM, then KILL in {row['grace_s']:g} s" if row["grace_s"] else "KILL"


def _otherwise(target: Target, parts: Sequence[Row]) -> str:
    if len(target.jobs) > 1:
        changed = sum(_size(row) for row in parts if row["state"] != target.state)
        return f"{count(changed, 'job')} changed meanwhile" if changed else ""
    (row,) = parts
    if row["state"] == "ended":
        return "ended meanwhile"
    if row["attempt"] > max(target.attempt, 1):
        return f"began anew meanwhile, attempt {row['attempt']}"
    if row["state"] == "queued" and target.state != "queued":
        return "waits again meanwhile"
    return "started meanwhile" if target.state == "queued" != row["state"] else ""
