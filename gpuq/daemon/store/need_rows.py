"""The rows of what jobs wait for: made as it was asked, divided and joined again.

Where each element waits for one, they remain few all the same: who has ended is cut out of the row of
all, and what is met is joined. Everything here stands in a transaction of others.
"""

from collections.abc import Sequence

from gpuq.core.asked.needs import Need
from gpuq.daemon.store.connection import Database, Row
from gpuq.daemon.store.elements import single_out


def keep_needs(db: Database, entry: range, needs: Sequence[Need], entries: Sequence[range]) -> int:
    """Notes what the jobs of an entry wait for; returns how many things that are. `entries` are the
    ids of those before it in the same submission. Stands in the transaction that stores the jobs."""
    for number, need in enumerate(needs):
        jobs = need.jobs if need.entry is None else entries[need.entry]
        row = {
            "entry": entry.start,
            "number": number,
            "condition": need.when.value,
            "each": int(need.each),
        }
        db.insert("needs", row | _spans(entry, jobs))
    return len(needs)


def join_met(db: Database, need: Row) -> None:
    """Made one with its neighbours that are met too, so that these rows remain few."""
    met = """
        select * from needs where entry = :entry and number = :number and state = 'met'
          and (last = :first - 1 or first = :last + 1 or id = :id) and first between
            coalesce((select max(first) from needs where entry = :entry and number = :number
                      and first < :first), :first) and :last + 1
        order by first
    """
    names = ("entry", "number", "first", "last", "id")
    rows = db.rows(met, {name: need[name] for name in names})
    if len(rows) < 2:
        return
    for row in rows[1:]:
        db.write("delete from needs where id = ?", (row["id"],))
    _stretch(db, rows[0], rows[0]["first"], rows[-1]["last"])


def _spans(waiting: range, jobs: range) -> dict[str, int]:
    return {
        "first": waiting[0],
        "last": waiting[-1],
        "on_first": jobs[0],
        "on_last": jobs[-1],
        "reach": 1 << (len(jobs) - 1).bit_length(),
    }


def cut_out(db: Database, need: Row, on: range, *, ahead_of_it: int) -> Row | None:
    """The elements that wait for these get a touched need of their own, and a row of theirs; returns
    the need of those behind them, None where there are none. `ahead_of_it`: are those ahead of them
    still to be looked at?"""
    single_out(db, *_waiting_for(need, on))
    parts = [
        (range(need["on_first"], on[0]), ahead_of_it),
        (on, 1),
        (range(on[-1] + 1, need["on_last"] + 1), need["touched"]),
    ]
    db.write("delete from needs where id = ?", (need["id"],))
    row: Row | None = None
    for part, touched in parts:
        row = _add_part(db, need, part, touched) if part else None
    return row


def cut_off(db: Database, need: Row, last: int) -> None:
    """Those that wait for jobs up to that one were looked at; the rest is still to be."""
    db.write("delete from needs where id = ?", (need["id"],))
    done = range(need["on_first"], last + 1)
    if done:
        single_out(db, *_waiting_for(need, done))
        _add_part(db, need, done, 0)
    _add_part(db, need, range(max(last + 1, need["on_first"]), need["on_last"] + 1), 1)


def _add_part(db: Database, need: Row, on: range, touched: int) -> Row:
    first, last = _waiting_for(need, on)
    row = need | _spans(range(first, last + 1), on) | {"touched": touched}
    del row["id"]
    return row | {"id": db.insert("needs", row)}


def _waiting_for(need: Row, on: range) -> tuple[int, int]:
    """The first and the last of the elements that wait for these."""
    behind: int = need["first"] - need["on_first"]
    return on[0] + behind, on[-1] + behind


def _stretch(db: Database, need: Row, first: int, last: int) -> None:
    behind = need["first"] - need["on_first"]
    spans = _spans(range(first, last + 1), range(first - behind, last + 1 - behind))
    setting = ", ".join(f"{name} = :{name}" for name in spans)
    db.write(f"update needs set {setting} where id = :id", spans | {"id": need["id"]})
