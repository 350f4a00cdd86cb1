"""Values as text. Pure: a Look comes in with the values, lines go out.

A terminal gets aligned columns, those that say something, cut to its width; a pipe gets all columns,
uncut, separated by TABs. What other people wrote (names, commands) is shown without the control
characters in it, which could otherwise repaint the reader's terminal.
"""

import re
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

from gpuq.core.units import format_bytes

# Rows of what the daemon says, looked into by the names of columns. Which fields there are is said in
# gpuq.typed, for who looks into them by their own.
Job: TypeAlias = Any
Gpu: TypeAlias = Any
Cell = str | tuple[str, str]  # a text, or a text and its colour

RED, GREEN, YELLOW, CYAN, DIM = "31", "32", "33", "36", "2"
GAP = "  "
_LATIN = re.compile("[\x80-\xa0\xad]")  # not printable, and less than U+0100
_PAINT = re.compile(r"(\x1b\[\d*m)")
PLAIN = str.maketrans("…–×█▉▊▋▌▍▎▏░▓", "~-x########.x")
LAST_WANTED = 30  # of a long text in the last column, before other columns are cut
LAST_LEAST = 8
NAME_LEAST = 12  # what is left of names at the least


class Look(NamedTuple):
    """How the reader reads, and who and when it is."""

    terminal: bool = True
    colour: bool = False
    unicode: bool = True
    width: int = 80
    user: str = ""
    now: float = 0.0


class Column(NamedTuple):
    """`unused` is what a row says that has nothing to say: a column in which all do is left out;
    None where it is wanted in any case. Where a table is too wide its texts are cut down to `least`
    (None: never), and `fitting` leaves out what is `optional`, the highest first (0: never)."""

    title: str
    text: Callable[[Any], Cell]
    right: bool = False
    unused: str | None = ""
    least: int | None = None
    optional: int = 0


def table(columns: Sequence[Column], values: Sequence[Any], look: Look) -> list[str]:
    """A head and a line for each value; only the last column may be cut, and those that say so."""
    rows = [[column.text(value) for column in columns] for value in values]
    used = [
        number
        for number, column in enumerate(columns)
        if any(_words(row[number]) != column.unused for row in rows)
    ]
    if not used:
        return []
    heads: list[Cell] = [columns[number].title for number in used]
    lines = [heads] + [[row[number] for number in used] for row in rows]
    widths = [max(map(width, map(_words, cells))) for cells in zip(*lines, strict=True)]
    widths = _cut_down(widths, [columns[number].least for number in used], look.width)
    right = [columns[number].right for number in used]
    return [_line(cells, widths, right, look) for cells in lines]


def _cut_down(widths: Sequence[int], least: Sequence[int | None], room: int) -> list[int]:
    """Of the columns that may be cut the widest gives way, until the others have room."""
    *front, last = widths
    over = sum(front) + min(last, LAST_WANTED) + len(GAP) * len(front) - room
    for _ in range(over):
        spare = [
            (front[number], number)
            for number, fewest in enumerate(least[:-1])
            if fewest is not None and front[number] > fewest
        ]
        if not spare:
            break
        front[max(spare)[1]] -= 1
    return [*front, last]


def fitting(columns: Sequence[Column], values: Sequence[Any], look: Look) -> list[Column]:
    """Without the optional columns that find no room, of equal ones those at the right first."""
    needed = [_needed(column, values) for column in columns]
    room = look.width + len(GAP) - sum(signs + len(GAP) for signs in needed if signs)
    left_out = set()
    for number in sorted(range(len(columns)), key=lambda n: (columns[n].optional, n), reverse=True):
        if room >= 0 or not columns[number].optional:
            break
        if needed[number]:
            left_out.add(number)
            room += needed[number] + len(GAP)
    return [column for number, column in enumerate(columns) if number not in left_out]


def _needed(column: Column, values: Sequence[Any]) -> int:
    """The fewest signs that it can be shown in; 0 where it is left out anyway."""
    words = [_words(column.text(value)) for value in values]
    if all(word == column.unused for word in words):
        return 0
    whole = max(map(width, [column.title, *words]))
    return whole if column.least is None else min(whole, column.least)


def _line(cells: Sequence[Cell], widths: Sequence[int], right: Sequence[bool], look: Look) -> str:
    *front, last = cells
    parts = [_aligned(*cell, look) for cell in zip(front, widths, right, strict=False)]
    room = look.width - sum(widths[:-1]) - len(GAP) * len(front)
    room = min(max(room, LAST_LEAST), widths[-1])
    parts.append(_aligned(last, room, right[-1], look))
    return plain(GAP.join(parts).rstrip(), look)


def _aligned(cell: Cell, room: int, right: bool, look: Look) -> str:
    words = cut(_words(cell), room)
    text, padding = paint(words, _colour(cell), look), " " * (room - width(words))
    return padding + text if right else text + padding


def _words(cell: Cell) -> str:
    return cell if isinstance(cell, str) else cell[0]


def _colour(cell: Cell) -> str:
    return "" if isinstance(cell, str) else cell[1]


def paint(text: str, colour: str, look: Look) -> str:
    return f"\x1b[{colour}m{text}\x1b[0m" if colour and look.colour else text


def plain(text: str, look: Look) -> str:
    """The same in ASCII where the locale has no more, with no column moved."""
    return text if look.unicode else in_ascii(text, PLAIN)


def in_ascii(text: str, signs: dict[int, int]) -> str:
    """With `signs` put into others; what is left takes as many question marks as it took columns."""
    text = text.translate(signs)
    if text.isascii():
        return text
    return "".join(char if char.isascii() else "?" * width(char) for char in text)


def width(text: str) -> int:
    """Columns on a terminal: most East Asian characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(
        0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1 for char in text
    )


def cut(text: str, room: int) -> str:
    if width(text) <= room:
        return text
    while width(text) > room - 1:
        text = text[: room - 1] if len(text) >= room else text[:-1]
    return text + "…"


def clip(line: str, room: int) -> str:
    """A painted line cut to the terminal's width, its colours switched off all the same."""
    pieces = []
    for piece in _PAINT.split(line):
        if not piece.startswith("\x1b"):
            piece = cut(piece, room) if room > 0 else ""
            room -= width(piece)
        pieces.append(piece)
    return "".join(pieces)


def unpainted(line: str) -> str:
    return _PAINT.sub("", line)


def printable(text: str) -> str:
    r"""Control characters as \n or \x1b, bytes that are no UTF-8 as \xff."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    if "\udc80" <= char <= "\udcff":
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape").decode()


def tabbed(values: Sequence[Any]) -> str:
    """One line for a pipe; nothing for None."""
    return "\t".join("" if value is None else printable(str(value)) for value in values)


def fields(pairs: Sequence[tuple[str, str]], look: Look) -> list[str]:
    """Names and values, one pair a line."""
    if not look.terminal:
        return [tabbed(pair) for pair in pairs]
    room = max(len(name) for name, _ in pairs)
    return [plain(f"{name:<{room}}  {printable(value)}", look) for name, value in pairs]


# ── the small words ──


def rfc3339(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def moment(seconds: float, now: float) -> str:
    """ "16:16:59" today, "11-22 16:16" this year, else the day."""
    then, today = clock(seconds), clock(now)
    if then[:10] == today[:10]:
        return then[11:]
    return then[5:16] if then[:4] == today[:4] else then[:10]


def memory(used: int | None, total: int | None) -> str:
    """ "21.9/80G": the unit once where both have the same."""
    if used is None and total is None:
        return "–"
    whole = format_bytes(total)
    part = "0" if used == 0 else format_bytes(used)
    return f"{part.removesuffix(whole[-1])}/{whole}"


def bar(used: float | None, total: float | None, cells: int = 10) -> str:
    """Eighths of a cell, rounded to the nearest."""
    if used is None or not total:
        return ""
    eighths = min(round(used / total * cells * 8), cells * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + " ▏▎▍▌▋▊▉"[rest] * (rest > 0)).ljust(cells, "░")


def command_line(argv: Sequence[str]) -> str:
    """On one line, as a shell would read it back: bash's and zsh's $'…' where it has to be."""
    return " ".join(map(_quoted, argv))


def _quoted(word: str) -> str:
    from shlex import quote

    return quote(word) if word.isprintable() else ansi_quoted(word)


def ansi_quoted(word: str) -> str:
    r"""As $'…'. There \x85 is a byte and no character, so those from U+0080 on are \u0085."""
    escaped = word.replace("\\", "\\\\").replace("'", "\\'")
    return "$'" + printable(_LATIN.sub(lambda sign: f"\\u{ord(sign[0]):04x}", escaped)) + "'"


def ordinal(number: int) -> str:
    tens = number % 100
    return f"{number}{'th' if 11 <= tens <= 13 else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')}"
