"""The words of a filter: what is typed behind `/` as a question that a row is asked.

    vit user:bob state:f gpu:3 !lr=0.1 "two words"

All of them have to hold. A word alone is looked for in id, name, user, command, tags and reason.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from gpuq.cli.fold_text import ACTIVE
from gpuq.cli.job_text import LETTERS, letter
from gpuq.core.units import parse_ranges, quoted
from gpuq.errors import UsageError
from gpuq.tui.data.spans import Row

Test = Callable[[Row], bool]
Needle = Callable[[Row, str], bool]

ALIASES = {"oom": "out_of_memory", "timeout": "timed_out"}
ENDS = ("succeeded", "failed", "cancelled", "timed_out", "out_of_memory", "lost", "skipped")
_TOKEN = re.compile(r'(!?)(?:([A-Za-z_]+):)?(?:"([^"]*)"?|(\S*))')
_LONGEST_NUMBER = 18


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """`tests` ask the row alone, `needles` also the text that all of it makes. `names_ended`: it asks
    for jobs that have ended, so they are wanted though they are hidden otherwise."""

    text: str = ""
    tests: tuple[Test, ...] = ()
    needles: tuple[Needle, ...] = ()
    names_ended: bool = False

    def matches(self, row: Row, reason: str | None) -> bool:
        for test in self.tests:
            if not test(row):
                return False
        if not self.needles:
            return True
        text = _all_text(row, reason)
        return all(needle(row, text) for needle in self.needles)


def parse_filter(text: str) -> Filter:
    """UsageError says which word is wrong, and how it should be."""
    tests, needles, names_ended = [], [], False
    for is_not, field, value, is_quoted in tokens(text):
        if field is None:
            if value:
                needles.append(_needle(value.casefold(), is_not, is_quoted))
            continue
        if field not in FIELDS:
            raise UsageError(
                f"{quoted(field)} is no field{_near(field, FIELDS)}; to look for the text, quote it"
            )
        if not value:
            raise UsageError(f"{field}: is to be followed by what is wanted, as in {HINTS[field]}")
        test = FIELDS[field](value)
        tests.append(_negated(test) if is_not else test)
        names_ended |= field == "state" and not is_not and _asks_for_ended(value)
    return Filter(
        text=text.strip(), tests=tuple(tests), needles=tuple(needles), names_ended=names_ended
    )


def tokens(text: str) -> list[tuple[bool, str | None, str, bool]]:
    found, at = [], 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        token = _TOKEN.match(text, at)
        if token is None or token.end() == at:
            at += 1
            continue
        sign, field, inside, bare = token.groups()
        value = bare if inside is None else inside
        found.append((bool(sign), field and field.lower(), value, inside is not None))
        at = token.end()
    return found


def _all_text(row: Row, reason: str | None) -> str:
    parts = (str(row["id"]), row["name"], row["user"], *row["command"], *row["tags"], reason or "")
    return " ".join(parts).casefold()


def _needle(word: str, is_not: bool, is_quoted: bool) -> Needle:
    number = None
    if not is_quoted and word.isascii() and word.isdecimal() and len(word) <= _LONGEST_NUMBER:
        number = int(word)

    def holds(row: Row, text: str) -> bool:
        is_in = word in text or (number is not None and row["id"] <= number <= row["last_id"])
        return is_in is not is_not

    return holds


def _negated(test: Test) -> Test:
    return lambda row: not test(row)


# ── fields ──


def _by_state(value: str) -> Test:
    words = state_words(value)

    def test(row: Row) -> bool:
        own = (row["state"], row["substate"], row["outcome"])
        return any(word in own for word in words) or _letter(row) in words

    return test


def state_words(value: str) -> frozenset[str]:
    """States, substates, outcomes and letters; "active" is all that have not ended."""
    words: set[str] = set()
    for word in value.lower().split(","):
        word = ALIASES.get(word, word)
        if word == "active":
            words |= set(ACTIVE)
        elif word in LETTERS or word == "ended":
            words.add(word)
        elif word.upper() in WORD_OF:
            words.add(word.upper())
        else:
            near = _near(word, (*LETTERS, "ended", "active", *ALIASES))
            raise UsageError(f"{quoted(word)} is no state{near}, or the letter of one")
    return frozenset(words)


def _near(word: str, known: Iterable[str]) -> str:
    """What it may be a slip of, else all there are."""
    from difflib import get_close_matches

    names = list(known)
    begun = [name for name in names if word and name.startswith(word)]
    near = begun[:1] or get_close_matches(word, names, n=1)
    return f": did you mean {near[0]}?" if near else f": {', '.join(names)}"


WORD_OF = {sign: word for word, (sign, _) in LETTERS.items()}


def _letter(row: Row) -> str:
    cell = letter(row)
    return cell if isinstance(cell, str) else cell[0]


def _asks_for_ended(value: str) -> bool:
    words = state_words(value)
    return any(WORD_OF.get(word, word) in (*ENDS, "ended") for word in words)


def _by_gpu(value: str) -> Test:
    spans = _ranges("gpu", value)
    return lambda row: any(gpu in span for gpu in row["gpus"] for span in spans)


def _by_id(value: str) -> Test:
    spans = _ranges("id", value)
    return lambda row: any(row["id"] < s.stop and row["last_id"] >= s.start for s in spans)


def _ranges(field: str, value: str) -> list[range]:
    try:
        return parse_ranges(value)
    except ValueError as error:
        raise UsageError(f"{field}: {error}, as in {HINTS[field]}") from None


def _by_group(value: str) -> Test:
    group = f"g{value.lower().removeprefix('g')}"
    return lambda row: bool(row["group"] == group)


def _by_tag(value: str) -> Test:
    fits = _like(value)
    return lambda row: any(map(fits, row["tags"]))


def _by_text(field: str) -> Callable[[str], Test]:
    def by(value: str) -> Test:
        fits = _like(value)
        return lambda row: fits(row[field] or "")

    return by


def _by_name(value: str) -> Test:
    """Anything in it, or where * or ? stand in it, the whole."""
    if "*" in value or "?" in value:
        return _by_text("name")(value)
    part = value.casefold()
    return lambda row: part in (row["name"] or "").casefold()


def _like(value: str) -> Callable[[str], bool]:
    """The whole text; * and ? stand for any letters. `bob` is not `bobby`, whose jobs might be killed
    otherwise."""
    pattern = value.casefold().replace("[", "[[]")
    return lambda text: fnmatchcase(text.casefold(), pattern)


FIELDS: dict[str, Callable[[str], Test]] = {
    "user": _by_text("user"),
    "state": _by_state,
    "gpu": _by_gpu,
    "tag": _by_tag,
    "queue": _by_text("queue"),
    "name": _by_name,
    "id": _by_id,
    "group": _by_group,
}
HINTS = {
    "user": "user:bob",
    "state": "state:running or state:f",
    "gpu": "gpu:0-3",
    "tag": "tag:sweep",
    "queue": "queue:night",
    "name": "name:vit",
    "id": "id:12-18,20",
    "group": "group:g12",
}


class Recalled:
    """Filters that were used, the last of them first; one stands there once."""

    def __init__(self, most: int = 50) -> None:
        self._texts: list[str] = []
        self._most = most

    def add(self, text: str) -> None:
        if text:
            self._texts = [text, *(one for one in self._texts if one != text)][: self._most]

    def at(self, number: int) -> str | None:
        """0 is the last; None: there are not so many."""
        return self._texts[number] if 0 <= number < len(self._texts) else None


def state_test(word: str) -> Test | None:
    """Of a choice of CHOICES; None: any state."""
    return None if word == "all" else FIELDS["state"](CHOICES[word])


CHOICES: dict[str, str] = {
    "all": "",
    "active": "active",
    "running": "starting,running",
    "queued": "queued",
    "held": "held",
    "failed": "failed,timed_out,out_of_memory,lost",
    "ended": "ended",
}


def next_choice(word: str, by: int = 1) -> str:
    words: Sequence[str] = list(CHOICES)
    return words[(words.index(word) + by) % len(words)]
