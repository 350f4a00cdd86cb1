r"""A line of a log as text that can be shown: no byte of it reaches the terminal as it is.

Colours are kept as far as they are among the sixteen that the terminal has names for; of others the
nearest is taken (values: xterm's). All other escape sequences are left out, and of a line that steps
back over what it wrote the whole is shown. Control characters and bytes that are no UTF-8 are written
out, as \x07; many NULs, as sparse files have them, are counted.
"""

import re
from typing import NamedTuple

from gpuq.cli.render import printable

TAB = 8
LONGEST_NUMBER = 5  # digits: colours have three
UNKNOWN = 100_000
_SEQUENCE = re.compile(
    r"\x1b\[([0-?]*)[ -/]*([@-~])"  # CSI
    r"|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\|$)"  # OSC, DCS, SOS, PM, APC
    r"|\x1b\[[0-?]*[ -/]*$"  # cut off
    r"|\x1b[ -/]*[0-~]"
)
_NULS = re.compile(r"\x00{4,}")
NAMES = ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white")
_XTERM = (
    (0, 0, 0),
    (205, 0, 0),
    (0, 205, 0),
    (205, 205, 0),
    (0, 0, 238),
    (205, 0, 205),
    (0, 205, 205),
    (229, 229, 229),
    (127, 127, 127),
    (255, 0, 0),
    (0, 255, 0),
    (255, 255, 0),
    (92, 92, 255),
    (255, 0, 255),
    (0, 255, 255),
    (255, 255, 255),
)


class Paint(NamedTuple):
    """Colours are numbers from 0 to 15, in ANSI's order; None: the terminal's own."""

    colour: int | None = None
    background: int | None = None
    bold: bool = False
    dim: bool = False
    italic: bool = False
    underline: bool = False
    reverse: bool = False


class Painted(NamedTuple):
    """A text, and where in it something is painted: from one sign to before another, how."""

    text: str
    spans: tuple[tuple[int, int, Paint], ...] = ()


PLAIN = Paint()


def painted(raw: bytes) -> Painted:
    """Each line for itself: what is painted beyond a newline is plain from there on."""
    text = raw.decode("utf-8", "surrogateescape")
    if text.isprintable():
        return Painted(text)
    texts: list[str] = []
    spans: list[tuple[int, int, Paint]] = []
    paint, at, length = PLAIN, 0, 0
    for match in [*_SEQUENCE.finditer(text), None]:
        piece = _readable(text[at : len(text) if match is None else match.start()], length)
        if piece:
            texts.append(piece)
            if paint != PLAIN:
                spans.append((length, length + len(piece), paint))
            length += len(piece)
        if match is not None:
            at = match.end()
            if match[2] == "m":
                paint = _repainted(paint, match[1])
    return Painted("".join(texts), tuple(spans))


def _readable(text: str, column: int) -> str:
    if text.isprintable():
        return text
    text = _NULS.sub(lambda nuls: f"[{len(nuls[0])} NUL bytes]", text)
    if "\t" in text:
        text = (" " * (column % TAB) + text).expandtabs(TAB)[column % TAB :]
    return printable(text)


_FLAGS = {1: "bold", 2: "dim", 3: "italic", 4: "underline", 7: "reverse"}
_OFF = {22: ("bold", "dim"), 23: ("italic",), 24: ("underline",), 27: ("reverse",)}


def _repainted(paint: Paint, codes: str) -> Paint:
    """ECMA-48, SGR; colours beyond the first eight as xterm has them."""
    numbers = [_number(code) for code in codes.replace(":", ";").split(";")]
    while numbers:
        code = numbers.pop(0)
        if code == 0:
            paint = PLAIN
        elif code in _FLAGS:
            paint = paint._replace(**{_FLAGS[code]: True})
        elif code in _OFF:
            paint = paint._replace(**dict.fromkeys(_OFF[code], False))
        elif code in (38, 48):
            colour = _nearest(numbers)
            is_behind = code == 48
            paint = (
                paint._replace(background=colour) if is_behind else paint._replace(colour=colour)
            )
        else:
            paint = _in_one_of_sixteen(paint, code)
    return paint


def _number(code: str) -> int:
    """0 for none; one that nothing is called by where it is too long to be one."""
    if len(code) > LONGEST_NUMBER:
        return UNKNOWN
    return int(code) if code.isdigit() else 0


def _in_one_of_sixteen(paint: Paint, code: int) -> Paint:
    """30 to 37 and 90 to 97, the same and 10 more for what is behind; 39 and 49 are the usual ones."""
    is_behind = 40 <= code <= 49 or 100 <= code <= 107
    number = code - 10 if is_behind else code
    if 30 <= number <= 37:
        colour: int | None = number - 30
    elif 90 <= number <= 97:
        colour = number - 90 + 8
    elif number == 39:
        colour = None
    else:
        return paint
    return paint._replace(background=colour) if is_behind else paint._replace(colour=colour)


def _nearest(numbers: list[int]) -> int | None:
    """Of `5;n` and `2;r;g;b`, which it takes away."""
    kind = numbers.pop(0) if numbers else 0
    if kind == 5 and numbers:
        number = numbers.pop(0)
        return number if number < 16 else _nearest_to(_of_256(number))
    if kind == 2 and len(numbers) >= 3:
        wanted = (numbers.pop(0), numbers.pop(0), numbers.pop(0))
        return _nearest_to(wanted)
    return None


def _of_256(number: int) -> tuple[int, int, int]:
    """xterm's cube of 6x6x6, and its 24 greys behind that."""
    if number >= 232:
        grey = 8 + 10 * (number - 232)
        return grey, grey, grey
    steps = (0, 95, 135, 175, 215, 255)
    number = max(number - 16, 0)
    return steps[number // 36 % 6], steps[number // 6 % 6], steps[number % 6]


def _nearest_to(wanted: tuple[int, int, int]) -> int:
    def distance(number: int) -> int:
        return sum((a - b) ** 2 for a, b in zip(_XTERM[number], wanted, strict=True))

    return min(range(16), key=distance)
