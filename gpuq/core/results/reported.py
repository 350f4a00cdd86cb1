"""What a job reports of itself: the bytes of its report become values.

Nothing is believed but of the job itself, and whatever is wrong costs its own line and is named. A
line that is read twice counts once: its writer numbers them. `gpuq.job` tells how a line looks.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from math import inf, isfinite, isnan, nan
from typing import Any

from gpuq.core.results.progress import not_a_progress
from gpuq.core.units import count, format_bytes

LONGEST_LINE = 4096  # bytes, with its newline
MOST_NAMES = 100  # of values of one attempt
LONGEST_NAME, LONGEST_TEXT = 80, 200  # signs
MOST_METRICS = 16 * 2**10  # bytes of JSON, of all names and values of one attempt
MOST_LINES = (
    4096  # that are taken in at once: an empty one costs as much as many bytes of a long one
)
MOST_WRITERS = 512  # processes whose numbers are remembered
MOST_GAPS = 16  # numbers of one writer that may come late, as from a signal handler
EXACT = 2**53  # whole numbers up to there are what every reader of JSON takes them for

LONGEST_NUMBER = "-2.2250738585072014e-308"
OTHER_JSON = tuple(bytes([sign]) for sign in b'["-0123456789')  # what else it may begin with

Value = float | int | str | bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What an attempt has told so far. `writers`: of each, by its short name, the number of its last
    line and those before it that did not come, who wrote last comes last. `troubles`: the first of each
    kind, in words."""

    file: str | None = None  # how what was read is known again
    read_bytes: int = 0
    writers: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    lines: int = 0  # that were taken
    refused: int = 0  # that could not be
    refused_values: int = 0  # of lines that were taken
    missed: int = 0  # that their writers counted and that did not come
    skipped_bytes: int = 0  # that were not looked at, there was too much
    troubles: Mapping[str, str] = field(default_factory=dict)  # by kind, in the order they came in
    metrics: Mapping[str, Value] = field(default_factory=dict)
    progress: float | None = None  # 0 to 1
    progress_from: str | None = None  # "report" or "log"
    reported_at: float | None = None  # s since the epoch


def read_on(
    told: Told, data: bytes, *, inside: bool, is_last: bool, now: float, earliest: float
) -> Told:
    """Takes in the next bytes of the file. A line that is not whole yet is left for the next time,
    unless none comes (`is_last`); one that is too long ever to be whole is left behind. `inside`: these
    bytes begin in the middle of such a one. A line says itself when it was written; that is believed
    between `earliest` and `now` (s since the epoch)."""
    start = data.find(b"\n") + 1 if inside else 0
    if inside and not start:
        return replace(told, read_bytes=told.read_bytes + len(data))
    end = max(data.rfind(b"\n") + 1, start)
    taking = _Taking(told, now, earliest)
    taking.take_lines(data[start:end], told.read_bytes + start)
    rest = data[end:]
    if rest and (is_last or len(rest) >= LONGEST_LINE):
        taking.take_line(rest, told.read_bytes + end)
        end = len(data)
    return taking.told(told.read_bytes + end)


def few_lines(data: bytes) -> bytes:
    """As much of its beginning as is taken in at once."""
    lines = data.split(b"\n", MOST_LINES)
    return data[: len(data) - len(lines[-1])] if len(lines) > MOST_LINES else data


def skip(told: Told, to_byte: int) -> Told:
    """Leaves out what stands before that byte."""
    left_out = to_byte - told.read_bytes
    return replace(told, read_bytes=to_byte, skipped_bytes=_counted(told.skipped_bytes + left_out))


def _counted(number: int) -> int:
    """A file with holes, or a writer that counts in leaps, would count to more than can be stored."""
    return min(number, EXACT)


def complain(told: Told, words: str) -> Told:
    """About the file as a whole."""
    return replace(told, troubles={"file": words, **told.troubles})


def with_bar(told: Told, fraction: float | None) -> Told:
    """How far a progress bar in its log has come, which counts where the job itself says nothing."""
    if fraction is None or told.progress_from == "report" or told.progress == fraction:
        return told
    return replace(told, progress=fraction, progress_from="log")


def trouble_words(
    troubles: Mapping[str, str],
    *,
    refused: int,
    refused_values: int,
    missed: int,
    skipped_bytes: int,
) -> str | None:
    """ "at byte 120: no JSON; 3 lines not taken"; None where all is well."""
    said = list(troubles.values())
    if refused:
        said.append(f"{count(refused, 'line')} not taken")
    if refused_values:
        said.append(f"{count(refused_values, 'value')} not taken")
    if skipped_bytes:
        said.append(f"{format_bytes(skipped_bytes)} not looked at, there was too much")
    elif missed:
        said.append(f"{count(missed, 'line')} never came, as a full disk loses them")
    return "; ".join(said) or None


class _Refused(ValueError):
    """Why a line cannot be taken, in words."""


class _Taking:
    """What was told, while lines are added to it."""

    def __init__(self, told: Told, now: float, earliest: float) -> None:
        self._before = told
        self._now, self._earliest = now, earliest
        self._writers = dict(told.writers)
        self._metrics = dict(told.metrics)
        self._metric_bytes: int | None = None  # counted once it matters
        self._lines, self._refused, self._missed = told.lines, told.refused, told.missed
        self._progress: float | None = None
        self._reported_at = told.reported_at
        self._refused_values, self._troubles = told.refused_values, dict(told.troubles)

    def told(self, read_bytes: int) -> Told:
        has_progress = self._progress is not None
        return replace(
            self._before,
            read_bytes=read_bytes,
            writers=self._writers,
            lines=_counted(self._lines),
            refused=_counted(self._refused),
            refused_values=_counted(self._refused_values),
            missed=_counted(self._missed),
            troubles=self._troubles,
            metrics=self._metrics,
            progress=self._progress if has_progress else self._before.progress,
            progress_from="report" if has_progress else self._before.progress_from,
            reported_at=self._reported_at,
        )

    def take_lines(self, data: bytes, begin: int) -> None:
        for line in data.split(b"\n"):
            if line:  # an empty one is the seam of a line that a full disk has cut off
                self.take_line(line, begin)
            begin += len(line) + 1

    def take_line(self, line: bytes, begin: int) -> None:
        if (why := _no_object(line)) is not None:
            self._refuse(begin, why)
            return
        try:
            said = _decode(line)
            if said and self._is_new(said):
                self._take(said, begin)
        except _Refused as refused:
            self._refuse(begin, str(refused))

    def _refuse(self, begin: int, why: str) -> None:
        self._refused += 1
        if "line" not in self._troubles:
            self._complain("line", begin, why)

    def _complain(self, kind: str, begin: int, words: str) -> None:
        self._troubles.setdefault(kind, f"at byte {begin}: {words}")

    def _is_new(self, said: dict[str, Any]) -> bool:
        """By the number that its writer gave it; who gives none is believed each time.

        A line may be read twice, where a job writes its file anew, and lines may come in another order
        than they were counted: a signal handler reports while the code that it interrupted has its
        number and not yet its line. So of each writer its highest number is known, and which ones below
        that are still to come (`gaps`). A number above the highest opens a gap for each that it passed
        over, all of them missed for now; one that fills a gap is no longer missed; any other was
        here before. Both memories are bounded. Of a writer who may have been forgotten nobody knows
        what came before: its line is taken as the next one, and misses nothing.
        """
        writer: Any = said.get("by")
        number: Any = said.get("n")
        if writer is None and number is None:
            return True
        is_count = isinstance(number, int) and not isinstance(number, bool) and 0 < number < EXACT
        if not isinstance(writer, str) or len(writer) > LONGEST_NAME or not is_count:
            raise _Refused('"by" and "n" do not name a writer and the number of its line')
        writer = _short_name(writer)
        is_known = writer in self._writers or len(self._writers) < MOST_WRITERS
        last, *gaps = self._writers.pop(writer, (0 if is_known else number - 1,))
        is_new = number > last or number in gaps
        if number > last:
            self._missed += number - last - 1
            gaps = [*gaps, *range(max(last + 1, number - MOST_GAPS), number)][-MOST_GAPS:]
            last = number
        elif is_new:
            self._missed -= 1
            gaps.remove(number)
        self._writers[writer] = (last, *gaps)
        if len(self._writers) > MOST_WRITERS:
            del self._writers[next(iter(self._writers))]
        return is_new

    def _take(self, said: dict[str, Any], begin: int) -> None:
        values = said.get("v", {})
        if not isinstance(values, dict) or not ("v" in said or "event" in said):
            raise _Refused('no values: they stand in "v", as {"v": {"loss": 0.25}}')
        self._lines += 1
        self._reported_at = self._moment(said.get("at"))
        if said.get("cut") is True:
            self._complain("cut", begin, "values were left out to keep the line within 4 KiB")
        for name, value in values.items():
            try:
                self._take_value(_cleaned(name), value)
            except _Refused as why:
                self._refused_values += 1
                self._complain("progress" if name == "progress" else "value", begin, str(why))

    def _take_value(self, name: str, value: Any) -> None:
        if name == "progress":
            self._take_progress(value)
            return
        if not 0 < len(name) <= LONGEST_NAME:
            raise _Refused(f"a name has 1 to {LONGEST_NAME} signs, and one has {len(name)}")
        if name not in self._metrics and len(self._metrics) >= MOST_NAMES:
            raise _Refused(f"{name} is one name too many: {MOST_NAMES} are kept")
        self._keep(name, _plain(name, value))

    def _keep(self, name: str, value: Value) -> None:
        known = self._metrics.get(name, "")
        if not isinstance(known, str) and not isinstance(value, str):
            self._metrics[name] = value  # in the room of the number that was there
            return
        if self._metric_bytes is None:
            self._metric_bytes = sum(_bytes_of(*one) for one in self._metrics.items())
        before = _bytes_of(name, known) if name in self._metrics else 0
        grown = self._metric_bytes - before + _bytes_of(name, value)
        if grown > MOST_METRICS:
            raise _Refused(
                f"{name} is too much: {MOST_METRICS // 1024} KiB are kept of all names and values"
            )
        self._metrics[name], self._metric_bytes = value, grown

    def _take_progress(self, value: Any) -> None:
        if value is None:
            return
        if isinstance(value, dict) and value.keys() == {"float"}:
            value = value["float"]
        if (why := not_a_progress(value)) is not None:
            raise _Refused(why)
        self._progress = min(float(value), 1.0)

    def _moment(self, at: Any) -> float:
        """A clock that is wrong, or was set since, must not date a report before its job or ahead."""
        is_number = isinstance(at, int | float) and not isinstance(at, bool)
        return float(at) if is_number and self._earliest <= at <= self._now else self._now


_CONSTANTS = {"NaN": nan, "Infinity": inf, "-Infinity": -inf}
_JSON = json.JSONDecoder(parse_constant=_CONSTANTS.__getitem__)
_TEXT = json.JSONEncoder(ensure_ascii=False)


def _no_object(line: bytes) -> str | None:
    """Why it can be none, as far as that is seen at once: a flood of such lines is not decoded."""
    if len(line) >= LONGEST_LINE:
        return f"a line is longer than {LONGEST_LINE // 1024} KiB"
    first = line[:1] if line[:1] > b" " else line.lstrip()[:1]
    if first == b"{":
        return None
    return 'no JSON object, as {"v": {"loss": 0.25}} is one' if first in OTHER_JSON else "no JSON"


def _decode(line: bytes) -> dict[str, Any]:
    try:
        said: dict[str, Any] = _JSON.decode(line.decode())
    except (ValueError, RecursionError):
        raise _Refused("no JSON") from None
    return said


def _short_name(writer: str) -> str:
    """`gpuq.job` draws 16 digits; whatever else somebody takes needs no more room than that."""
    if len(writer) <= 16 and writer.isascii() and writer.isalnum():
        return writer
    return blake2b(writer.encode("utf-8", "replace"), digest_size=8).hexdigest()


def _bytes_of(name: str, value: Value) -> int:
    """As JSON; every number counts as the longest one."""
    text = _TEXT.encode(value) if isinstance(value, str) else LONGEST_NUMBER
    return len(_TEXT.encode(name).encode()) + len(text.encode()) + len(": , ")


def _plain(name: str, value: Any) -> Value:
    """A number that is not finite is the text "nan", "inf" or "-inf"."""
    if isinstance(value, dict) and value.keys() == {"float"}:
        value = _CONSTANTS.get(_LONG_NAMES.get(str(value["float"]), ""), value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _short(_cleaned(value))
    if isinstance(value, int):
        return value if abs(value) < EXACT else _finite(_as_float(value))
    if isinstance(value, float):
        return _finite(value)
    raise _Refused(f"{name} is a {'list' if isinstance(value, list) else 'table'}, and no value")


_LONG_NAMES = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def _finite(number: float) -> float | str:
    if isfinite(number):
        return number
    return "nan" if isnan(number) else "inf" if number > 0 else "-inf"


def _as_float(number: int) -> float:
    try:
        return float(number)
    except OverflowError:
        return inf if number > 0 else -inf


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"


def _cleaned(text: str) -> str:
    """JSON can write half a character, which no database takes."""
    return text.encode("utf-8", "replace").decode()
