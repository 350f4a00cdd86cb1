"""The table writer and the small words: pure, so tried with values."""

import os
import subprocess
import time

import pytest

from gpuq.cli.render import (
    RED,
    Column,
    Look,
    bar,
    clip,
    clock,
    command_line,
    cut,
    fields,
    fitting,
    memory,
    moment,
    ordinal,
    plain,
    printable,
    rfc3339,
    tabbed,
    table,
)
from gpuq.core.units import format_indices

GIB = 2**30
COLUMNS = [
    Column("ID", lambda row: str(row["id"])),
    Column("PRI", lambda row: str(row["priority"]), right=True, unused="0"),
    Column("TEXT", lambda row: row["text"]),
]


def row(id: int, text: str = "a text", priority: int = 0) -> dict[str, object]:
    return {"id": id, "text": text, "priority": priority}


def test_columns_are_aligned_and_nothing_trails() -> None:
    assert table(COLUMNS, [row(9, priority=5), row(10, priority=-20)], Look()) == [
        "ID  PRI  TEXT",
        "9     5  a text",
        "10  -20  a text",
    ]


def test_a_column_in_which_no_row_says_anything_is_left_out() -> None:
    assert table(COLUMNS, [row(9), row(10)], Look()) == ["ID  TEXT", "9   a text", "10  a text"]


def test_a_table_of_nothing_is_no_table() -> None:
    assert table(COLUMNS, [], Look()) == []


def test_only_the_last_column_is_cut_at_the_terminals_edge() -> None:
    lines = table(COLUMNS, [row(12345678, text="0123456789" * 9)], Look(width=30))
    assert lines[1] == "12345678  0123456789012345678…"
    assert len(lines[1]) == 30


def test_a_painted_line_is_cut_by_what_is_seen_and_ends_its_colour() -> None:
    painted = "ab \x1b[31mred\x1b[0m end"
    assert clip(painted, 10) == painted
    assert clip(painted, 8) == "ab \x1b[31mred\x1b[0m …"
    assert clip(painted, 5) == "ab \x1b[31mr…\x1b[0m"
    assert clip(painted, 2) == "a…\x1b[31m\x1b[0m"


def test_colour_moves_no_column_and_is_nowhere_without_leave() -> None:
    columns = [Column("ST", lambda row: ("F", RED)), COLUMNS[2]]
    with_colour = table(columns, [row(1)], Look(colour=True))
    assert with_colour == ["ST  TEXT", "\x1b[31mF\x1b[0m   a text"]
    assert table(columns, [row(1)], Look()) == ["ST  TEXT", "F   a text"]


def test_a_locale_without_unicode_gets_ascii_of_the_same_width() -> None:
    look = Look(unicode=False)
    assert plain("███▉░ 21.9/80G – x2 …", look) == "####. 21.9/80G - x2 ~"
    assert plain("naïve", look) == "na?ve"
    assert plain("naïve –", Look()) == "naïve –"


def test_wide_characters_keep_columns_straight() -> None:
    lines = table(COLUMNS[::2], [row(1, text="实验"), row(2, text="ab")], Look())
    assert lines == ["ID  TEXT", "1   实验", "2   ab"]
    assert cut("实验实验", 5) == "实验…"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("two\nlines\t", "two\\nlines\\t"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("byte \udcff", "byte \\xff"),
        ("déjà 実", "déjà 実"),
    ],
)
def test_what_others_wrote_cannot_move_the_cursor(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_a_line_for_a_pipe_has_one_field_for_each_value_and_no_newline() -> None:
    assert tabbed([1, None, "a\tb\nc", 0]) == "1\t\ta\\tb\\nc\t0"


def test_fields_are_aligned_on_a_terminal_and_tabbed_on_a_pipe() -> None:
    pairs = [("state", "running"), ("on gpu", "0,1")]
    assert fields(pairs, Look()) == ["state   running", "on gpu  0,1"]
    assert fields(pairs, Look(terminal=False)) == ["state\trunning", "on gpu\t0,1"]


@pytest.mark.parametrize(
    ("used", "shown"),
    [
        (0, "░░░░░░░░░░"),
        (80 * GIB, "██████████"),
        (40 * GIB, "█████░░░░░"),
        (21.9 * GIB, "██▊░░░░░░░"),
        (99 * GIB, "██████████"),
    ],
)
def test_the_bar_counts_in_eighths(used: float, shown: str) -> None:
    assert bar(int(used), 80 * GIB) == shown


def test_an_absent_reading_is_no_bar_and_a_dash() -> None:
    assert bar(None, 80 * GIB) == bar(1, 0) == bar(1, None) == ""
    assert memory(None, 80 * GIB) == "–/80G"


def test_memory_has_its_unit_once() -> None:
    assert memory(int(21.9 * GIB), 80 * GIB) == "21.9/80G"
    assert memory(512 * 2**20, 80 * GIB) == "512M/80G"
    assert memory(0, 80 * GIB) == "0/80G"


def test_the_small_words() -> None:
    assert [format_indices(numbers) for numbers in ([], [3], [0, 1], [0, 1, 2, 5])] == [
        "",
        "3",
        "0,1",
        "0-2,5",
    ]
    assert [ordinal(n) for n in (1, 2, 3, 4, 11, 12, 13, 21, 102, 111)] == [
        "1st",
        "2nd",
        "3rd",
        "4th",
        "11th",
        "12th",
        "13th",
        "21st",
        "102nd",
        "111th",
    ]
    assert rfc3339(0.0) == "1970-01-01T00:00:00Z"
    assert rfc3339(None) is None


@pytest.mark.parametrize(
    "argv",
    [
        ["python", "train.py", "--lr=3e-4"],
        ["sh", "-c", "a; b $HOME 'c' \"d\""],
        ["python", "-c", "print('\\n')\n\tprint(\"x\")\n"],
        ["bytes \udcff\udc80", "", "実験", "\x1b[31m"],
    ],
)
def test_a_command_is_shown_on_one_line_that_a_shell_reads_back(argv: list[str]) -> None:
    line = command_line(argv)
    assert line.isprintable()
    echoed = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, check=True
    ).stdout
    assert echoed.split(b"\0")[:-1] == [os.fsencode(word) for word in argv]


def test_a_clock_is_the_readers_own(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert clock(0.0) == "1970-01-01 09:00:00"
    finally:
        monkeypatch.undo()
        time.tzset()


NAMED = [
    Column("ID", lambda row: str(row["id"])),
    Column("NAME", lambda row: row["name"], least=12),
    Column("TEXT", lambda row: row["text"]),
]


def test_a_long_name_gives_way_to_the_beginning_of_the_text() -> None:
    long = {"id": 1, "name": 63 * "n", "text": 50 * "t"}
    (_, line) = table(NAMED, [long], Look(width=60))
    assert line == f"1   {23 * 'n'}…  {29 * 't'}…"
    (_, line) = table(NAMED, [long], Look(width=30))
    assert line == f"1   {11 * 'n'}…  {11 * 't'}…"
    assert table(NAMED, [long], Look(width=120))[1] == f"1   {63 * 'n'}  {50 * 't'}"


def test_of_the_optional_columns_the_highest_goes_first_and_equals_from_the_right() -> None:
    columns = [
        Column("AAAA", lambda row: "a"),
        Column("BBBB", lambda row: "b", optional=1),
        Column("CCCC", lambda row: "c", optional=2),
        Column("DDDD", lambda row: "d", optional=2),
        Column("EEEE", lambda row: "", optional=3),
    ]
    kept = [
        "".join(column.title[0] for column in fitting(columns, [row(1)], Look(width=width)))
        for width in (22, 21, 15, 9, 3)
    ]
    assert kept == ["ABCDE", "ABCE", "ABE", "AE", "AE"]


def test_numbers_in_the_last_column_stand_below_each_other() -> None:
    columns = [COLUMNS[0], COLUMNS[1]]
    rows = [row(9, priority=5), row(10, priority=-20)]
    assert table(columns, rows, Look()) == ["ID  PRI", "9     5", "10  -20"]


def test_a_moment_is_told_by_what_differs_from_now(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_700_006_400.0
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        told = [moment(now - back, now) for back in (0, 3600, 500 * 86400)]
    time.tzset()
    assert told == ["00:00:00", "11-14 23:00", "2022-07-03"]
