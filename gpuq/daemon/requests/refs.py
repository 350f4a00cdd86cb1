"""Which jobs are meant by what people write: "12", "12-18,20", "@", "@~2", "g12"."""

from collections.abc import Sequence
from typing import Any

from gpuq.core.units import LONGEST_QUOTED, merged, parse_ranges, quoted
from gpuq.daemon.callers.peer import Peer
from gpuq.daemon.store.connection import Row
from gpuq.daemon.store.found import Found, element
from gpuq.errors import NothingMatched, UsageError

MOST_SPANS, MOST_LOOKED_UP = 20_000, 100  # by one request


class References:
    """Resolves references; "@" counts among the asker's own submissions."""

    def __init__(self, found: Found) -> None:
        self._found = found

    def find(self, refs: Sequence[Any], peer: Peer, *, to_end: bool = False) -> list[Row]:
        """The runs of the jobs named, in order and in brief; all are there, or NothingMatched.
        `to_end`:
        with those that are over joined to longer runs."""
        spans = self.spans(refs, peer)
        rows = self._found.to_end(spans) if to_end else self._found.brief(spans)
        if not rows:
            raise self.no_such_job(refs, peer)
        return rows

    def find_last(self, ref: Any, peer: Peer) -> Row:
        """The last of the jobs named, with all about it."""
        rows = self._found.jobs(ids=self.spans([ref], peer), limit=1)
        if not rows:
            raise self.no_such_job([ref], peer)
        return element(rows[0], rows[0]["last_id"])

    def spans(self, refs: Sequence[Any], peer: Peer) -> list[range]:
        """As `resolve`; what is named by its number is there, or NothingMatched."""
        if not refs:
            raise UsageError("no job is named")
        spans = self.resolve(refs, peer)
        for ref in refs:
            word = str(ref)
            is_id = word.isascii() and word.isdecimal()
            if is_id and not (_is_number(word) and self._found.has(int(word))):
                raise self.no_such_job([ref], peer)
        return spans

    def resolve(self, refs: Sequence[Any], peer: Peer) -> list[range]:
        """Apart from each other and in order. One request names so many jobs as people do: all others
        wait while they are looked up, and one that names the same a million times looks as often."""
        words = list(dict.fromkeys(map(str, refs)))
        looked_up = sum(word[:1] in ("@", "g") for word in words)
        if looked_up > MOST_LOOKED_UP:
            raise UsageError(f"{looked_up} groups at once: name up to {MOST_LOOKED_UP}")
        spans = sum(word.count(",") + 1 for word in words)
        if spans > MOST_SPANS:
            raise UsageError(f"{spans} jobs and ranges at once: name up to {MOST_SPANS}")
        return merged(span for word in words for span in self._resolve_one(word, peer))

    def _resolve_one(self, ref: str, peer: Peer) -> list[range]:
        """ "12", "12-18,20", "@" and "@~2" (counted among your own submissions), "g12"."""
        if ref.startswith("@"):
            back = ref.removeprefix("@").removeprefix("~") or "0"
            if ref not in ("@", f"@~{back}") or not _is_number(back):
                raise UsageError(f"{quoted(ref)} is no job: write @ or @~2")
            group = self._found.submission(peer.uid, int(back))
            if not group:
                raise NothingMatched(f"you have no job {ref}: you have submitted fewer")
            return group
        if ref.startswith("g") and _is_number(ref[1:]):
            group = self._found.group(int(ref[1:]))
            if not group:
                raise NothingMatched(f"no group {ref}. See: gpuq status -a")
            return group
        try:
            return parse_ranges(ref)
        except ValueError as error:
            is_name = ref[:1].isalpha() and ref.isprintable() and len(ref) <= LONGEST_QUOTED
            by_name = f". Jobs of that name: gpuq group {ref}" if is_name else ""
            raise UsageError(
                f"{error}; a job is named like 12, 12-18,20, @, @~2 or g12{by_name}"
            ) from None

    def check_any(self, refs: Sequence[Any], spans: Sequence[range], peer: Peer) -> None:
        """NothingMatched where none of the jobs is there that were named so."""
        if refs and not self._found.count(spans):
            raise self.no_such_job(refs, peer)

    def no_such_job(self, refs: Sequence[Any], peer: Peer) -> NothingMatched:
        last = self._found.last_id(peer.uid)
        yours = f"your last is {last}" if last is not None else "you have submitted none yet"
        named = " ".join(map(str, refs))
        if len(named) > LONGEST_QUOTED:
            named = named[: LONGEST_QUOTED - 1] + "…"
        return NothingMatched(f"no job {named} ({yours}). See: gpuq status -a")


def _is_number(text: str) -> bool:
    """ASCII digits, and no more of them than an id can have."""
    return text.isascii() and text.isdecimal() and len(text) <= 18
