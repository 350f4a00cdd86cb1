"""What people write for numbers, and numbers as people read them: "2h30m", "24G", "0-3,5".

Sizes are binary (1G is 2**30 bytes), because nvidia-smi, torch and the card's own label are.
"""

import re
from collections.abc import Iterable, Iterator, Sequence

LONGEST_QUOTED = 80
_SIZES = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,15})?)([KMGT])(?:i?B)?", re.IGNORECASE)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SPAN = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_CLOCK = re.compile(r"(?:(\d+)-)?(\d+):(\d\d)(?::(\d\d))?")


def quoted(value: object) -> str:
    """What somebody wrote, as an error repeats it: what is longer than a line is cut, and what would
    move a terminal's cursor is told and not done."""
    text = repr(value)
    return text if len(text) <= LONGEST_QUOTED else text[: LONGEST_QUOTED - 1] + "…"


def parse_bytes(text: str) -> int:
    """Bytes of "24G", "1.5G", "500M", "24GiB". A bare number has no unit and is refused."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{quoted(text)} is no size: write it like 24G or 500M")
    return int(float(match[1]) * _SIZES[match[2].upper()])


def format_bytes(size: int | None) -> str:
    """Three digits at the most: "512M", "23.9G", "80G"; "–" for an absent reading."""
    if size is None:
        return "–"
    for unit, scale in (("T", 2**40), ("G", 2**30), ("M", 2**20), ("K", 2**10)):
        if size * 1024 >= scale * 999.5:  # 1000M would be a fourth digit: 1G
            return _short(size / scale) + unit
    return f"{size}B"


def _short(number: float) -> str:
    text = f"{number:.1f}" if number < 100 else f"{number:.0f}"
    return text.removesuffix(".0")


def parse_seconds(text: str) -> float:
    """Seconds of "90", "10s", "2h30m", "1:30:00", "2-00:00:00" (the last two as Slurm has them,
    https://slurm.schedmd.com/sbatch.html#OPT_time)."""
    plain = text.strip().lower()
    if re.fullmatch(r"\d+(\.\d+)?", plain):
        return float(plain)
    if match := _CLOCK.fullmatch(plain):
        return _clock_seconds(*match.groups())
    spans = _SPAN.findall(plain)
    if not spans or "".join(number + unit for number, unit in spans) != plain:
        raise ValueError(
            f"{quoted(text)} is no length of time: write it like 90s, 2h30m or 1:30:00"
        )
    return sum(float(number) * _SECONDS[unit] for number, unit in spans)


def _clock_seconds(days: str | None, first: str, second: str, third: str | None) -> float:
    if third is None and days is None:  # "1:30" is a minute and a half, "1-12:00" a day and a half
        return int(first) * 60 + int(second)
    return int(days or 0) * 86400 + int(first) * 3600 + int(second) * 60 + int(third or 0)


def format_seconds(seconds: float | None) -> str:
    """ "4.2s", "0:59", "2:13:04", "3d02h"; "-" where there is none."""
    if seconds is None:
        return "-"
    whole = int(seconds)
    if whole >= 2 * 86400:
        return f"{whole // 86400}d{whole % 86400 // 3600:02}h"
    if whole >= 3600:
        return f"{whole // 3600}:{whole % 3600 // 60:02}:{whole % 60:02}"
    if seconds >= 10:
        return f"{whole // 60}:{whole % 60:02}"
    return f"{max(seconds, 0):.1f}s"


def in_words(seconds: float) -> str:
    """As a person says it, to its two largest units: "10 s", "1 h", "1 h 30 min", "3 d"."""
    whole, said = max(int(seconds), 0), list[str]()
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        number, whole = divmod(whole, length)
        if number:
            said.append(f"{number} {unit}")
        elif said:
            break
    return " ".join(said[:2]) or "0 s"


def format_energy(joules: float | None) -> str:
    """ "3.1 Wh", "85 Wh", "0.42 kWh", "120 kWh"; "–" where nobody knows."""
    if joules is None:
        return "–"
    wh = joules / 3600
    if wh < 99.5:
        return f"{wh:.1f} Wh" if wh < 9.95 else f"{wh:.0f} Wh"
    kwh = wh / 1000
    digits = 2 if kwh < 9.995 else 1 if kwh < 99.95 else 0
    return f"{kwh:.{digits}f} kWh"


def parse_ranges(text: str) -> list[range]:
    """ "12-18,20" as ranges of whole numbers, in the order written, not unrolled."""
    ranges = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip())
        if match is None:
            raise ValueError(f"{quoted(part)} is neither a number nor a range like 12-18")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ValueError(f"{quoted(part)} runs backwards")
        ranges.append(range(first, last + 1))
    return ranges


def format_ranges(numbers: list[int]) -> str:
    """[0, 1, 2, 5] as "0-2,5"."""
    return format_spans(range(number, number + 1) for number in sorted(set(numbers)))


def format_indices(numbers: Sequence[int]) -> str:
    """ "0,1", and "0-3,5" where it is shorter."""
    return format_ranges(list(numbers)) if len(numbers) > 2 else ",".join(map(str, numbers))


def name_gpus(indices: Sequence[int], kind: str = "GPU") -> str:
    """ "GPU 0", "GPUs 0,1", "simulated GPUs 0-3"."""
    return f"{kind if len(indices) == 1 else f'{kind}s'} {format_indices(indices)}"


def format_spans(spans: Iterable[range]) -> str:
    """[0, 3), [3, 4) and [5, 6) as "0-3,5"; they come in order and apart from each other."""
    joined: list[list[int]] = []
    for span in spans:
        if joined and span.start == joined[-1][1]:
            joined[-1][1] = span.stop
        elif span:
            joined.append([span.start, span.stop])
    return ",".join(f"{a}-{b - 1}" if b - a > 1 else str(a) for a, b in joined)


def merged(spans: Iterable[range]) -> list[range]:
    """In order and apart: what overlaps or touches is one."""
    apart: list[range] = []
    for span in sorted(spans, key=lambda span: span.start):
        if apart and span.start <= apart[-1].stop:
            span = range(apart[-1].start, max(span.stop, apart.pop().stop))
        apart.append(span)
    return apart


def without(spans: Iterable[range], others: Iterable[range]) -> Iterator[range]:
    """What of the spans is in none of the others; both in order and apart, and each of the others
    within one of the spans. Some of what is left may be empty."""
    rest = iter(others)
    other = next(rest, None)
    for span in spans:
        start = span.start
        while other is not None and other.start < span.stop:
            yield range(start, other.start)
            start, other = other.stop, next(rest, None)
        yield range(start, span.stop)


def count(number: int, noun: str) -> str:
    """ "1 GPU", "3 GPUs"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
