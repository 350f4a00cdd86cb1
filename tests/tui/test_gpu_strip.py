"""The GPUs above the jobs: what is said of each, in any width, and no more drawn than has changed."""

from pathlib import Path
from typing import Any

import pytest
from textual.geometry import Region

from gpuq.tui.data.gpus.forms import form, strip_rows
from gpuq.tui.data.gpus.line import Pieces, folded, gpu_line, head
from gpuq.tui.looks import Line, Signs
from gpuq.tui.widgets.gpu_strip import GpuStrip
from tests.cli.said import GIB, Said, gpu, process, simulated
from tests.tui.golden import GOLDENS, hold
from tests.tui.screened import NOW, Screened, row, screened

WIDTHS = (40, 80, 120, 160)
READ = {"utilization_percent": 97, "temperature_c": 71, "power_w": 388.4}
ABSENT = dict.fromkeys(
    ("memory_used_bytes", "utilization_percent", "temperature_c", "power_w", "power_limit_w")
)


def held(index: int, *jobs: int, used: float = 71.2, **changes: Any) -> Said:
    changes = {"exclusive": True, **READ} | changes
    return gpu(index, state="leased", jobs=list(jobs), memory_used_bytes=int(used * GIB), **changes)


JOBS = [
    row(181, name="vit-b", state="running", gpu_count=2, gpus=[0, 1]),
    row(183, name="eval-7", user="bob", state="running", gpus=[2]),
    row(185, name="a-job-with-a-rather-long-name", user="someone-else", state="running", gpus=[9]),
]
DRAINED = {"actor": "dan", "reason": "riser swap", "at": NOW - 60.0}
GPUS = [
    held(0, 181),
    held(1, 181, utilization_percent=96, temperature_c=69),
    held(2, 183, 184, 199, used=21.9, exclusive=False, utilization_percent=12),
    gpu(
        3,
        state="foreign",
        reason="outside gpuq: python 40121 carol",
        memory_used_bytes=int(40.1 * GIB),
        processes=[process(), process(40122)],
    ),
    gpu(4, state="drained", reason="drained by dan: riser swap", drained=DRAINED),
    gpu(5, state="quarantined", reason="set aside: XID 79 (fallen off the bus)"),
    gpu(6, state="lost", reason="it gives no reading: GPU is lost", **ABSENT),
    simulated(7, state="leased", jobs=[183], exclusive=False, memory_used_bytes=int(1.5 * GIB)),
    simulated(8),
    held(9, 185, processes=[process(7, user=None, command=None)]),
    gpu(10, reservations=[{"user": "erin", "begin_at": NOW + 3600, "end_at": NOW + 7200}]),
    gpu(11, state="cooling", reason="3.1G left by job 180"),
    gpu(12, state="foreign", reason="locked by the daemon of user 1001"),
]


def history(**of: list[float | None]) -> Said:
    """An answer of the daemon: the last 5 minutes in steps of a second."""
    gpus = {uuid: {"utilization_percent": values} for uuid, values in of.items()}
    return {"begin_at": NOW - 299.0, "step_s": 1.0, "gpus": gpus}


BUSY = {
    "GPU-0": [float(n % 100) for n in range(300)],
    "GPU-1": [None] * 150 + [97.0] * 150,
    "GPU-2": [0.0] * 280 + [12.0] * 20,
}


def strip_of(screen: Screened) -> str:
    strip = screen.app.screen.query_one(GpuStrip)
    lines = [strip.render_line(y).text.rstrip() for y in range(strip.size.height)]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("width", WIDTHS)
def test_it_looks_as_it_is_written_down(tmp_path: Path, width: int) -> None:
    async def deed(screen: Screened) -> None:
        await screen.until(lambda: screen.daemon.requests("gpu_history"), "the past to be asked")
        await screen.settle()
        hold(strip_of(screen), f"gpus_strip_{width}.txt")
        assert max(map(len, strip_of(screen).splitlines())) <= width

    answers = {"gpu_history": history(**BUSY)}
    screened(tmp_path, deed, size=(width, 48), jobs=JOBS, gpus=GPUS, answers=answers)


def test_in_ascii_no_column_moves(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.until(lambda: screen.daemon.requests("gpu_history"), "the past to be asked")
        await screen.settle()
        seen, drawn = strip_of(screen), (GOLDENS / "gpus_strip_80.txt").read_text()
        assert seen.isascii()
        assert [len(line) for line in seen.splitlines()] == list(map(len, drawn.splitlines()))

    answers = {"gpu_history": history(**BUSY)}
    plain = Signs(unicode=False, now=lambda: NOW)
    screened(tmp_path, deed, size=(80, 48), jobs=JOBS, gpus=GPUS, answers=answers, signs=plain)


# ─── rows and columns ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("gpus", "width", "height", "rows"),
    [
        (4, 80, 24, 5),
        (8, 80, 24, 9),
        (11, 80, 24, 12),
        (16, 80, 24, 8),
        (16, 120, 24, 12),
        (16, 80, 48, 17),
        (16, 80, 30, 17),
        (8, 160, 48, 9),
        (4, 80, 23, 1),
        (4, 40, 13, 1),
        (4, 40, 12, 0),
        (0, 40, 12, 0),
        (1, 80, 24, 2),
        (0, 160, 48, 1),
    ],
)
def test_jobs_keep_their_rows(gpus: int, width: int, height: int, rows: int) -> None:
    assert strip_rows(gpus, width, height) == rows


@pytest.mark.parametrize("size", [(40, 24), (80, 24), (80, 25), (120, 24), (160, 26)])
def test_jobs_have_eight_rows_however_many_gpus_there_are(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    async def deed(screen: Screened) -> None:
        table = screen.app.screen.query_one("#jobs")
        assert table.size.height >= 8
        assert "more" in strip_of(screen).splitlines()[-1]

    jobs = [row(number) for number in range(1, 40)]
    screened(tmp_path, deed, size=size, jobs=jobs, gpus=[gpu(n) for n in range(16)])


def test_what_the_gpus_leave_is_the_room_of_the_pane(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        shown = screen.app.screen
        assert shown.query_one("#jobs").size.height == 8
        assert shown.query_one("#pane").size.height == 4
        assert "… and 10 more" in strip_of(screen)
        assert screen.flowing().count("[detail]") == 1

    jobs = [row(number) for number in range(1, 40)]
    screened(tmp_path, deed, jobs=jobs, gpus=[gpu(n) for n in range(16)])


def test_a_very_low_window_counts_them_where_there_is_room(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        assert screen.app.screen.query_one("#jobs").size.height == 8
        assert " 2 simulated GPUs  2 free" in screen.text().splitlines()[-2]
        await screen.pilot.resize_terminal(40, 13)
        await screen.settle()
        assert screen.app.screen.query_one("#jobs").size.height == 8
        assert screen.text().splitlines()[1].startswith(" 2 simulated GPUs  2 free")
        assert "simulated" not in screen.text().splitlines()[-2]

    jobs = [row(number) for number in range(1, 40)]
    gpus = [simulated(n) for n in range(2)]
    screened(tmp_path, deed, size=(40, 12), jobs=jobs, gpus=gpus)


def test_a_low_window_has_one_line_that_counts_them(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        (line,) = strip_of(screen).splitlines()
        assert line.startswith(" 11 GPUs and 2 simulated GPUs  5 leased  2 free  1 lost")
        await screen.pilot.resize_terminal(80, 30)
        await screen.settle()
        assert len(strip_of(screen).splitlines()) == 14
        await screen.pilot.resize_terminal(80, 20)
        await screen.settle()
        assert strip_of(screen).splitlines() == [line]

    screened(tmp_path, deed, size=(80, 20), jobs=JOBS, gpus=GPUS)


def test_why_there_are_no_gpus_is_said(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        assert strip_of(screen) == " no GPUs: no driver here\n"

    screened(tmp_path, deed, beside={"gpu_trouble": "no driver here"})


def text_of(pieces: Pieces, width: int) -> str:
    line = Line(width, Signs())
    for text, _, wide, right in pieces:
        line.add(text, wide=wide, right=right)
    return line.strip().text


@pytest.mark.parametrize("width", [*range(40, 200, 7), 200])
def test_nothing_jumps_whatever_is_read(width: int) -> None:
    """What follows the readings stands at the same place."""
    readings: list[Said] = [
        held(0, 7),
        held(0, 7, used=0.0, utilization_percent=0, power_w=5.0, temperature_c=9),
        held(0, 7, used=0.4, utilization_percent=100, power_w=1000.0, temperature_c=105),
        held(0, 7, used=79.96),
        held(0, 7, utilization_percent=None, power_w=None, temperature_c=None),
        held(0, 7, used=0.4) | ABSENT,
    ]
    cells = form(width, readings)
    past = [50.0] * cells.history
    lines = [text_of(gpu_line(one, cells, [None], past, NOW), width) for one in readings]
    assert {line.rindex("7") for line in lines} == {cells.front}
    assert text_of(head(cells), width).index("JOB") == cells.front
    assert cells.front + cells.occupation == max(width, cells.front)
    assert cells.occupation >= 14


def test_wider_windows_show_no_less() -> None:
    forms = [form(width, GPUS) for width in range(40, 200)]
    for name in ("bar", "history", "temperature"):
        seen = [bool(getattr(one, name)) for one in forms]
        assert seen == sorted(seen)


def test_every_line_of_a_simulated_gpu_says_so() -> None:
    states = ("free", "leased", "foreign", "drained", "quarantined", "lost", "cooling", "dirty")
    for width in range(40, 170, 10):
        for state in states:
            one = simulated(0, state=state, jobs=[5] if state == "leased" else [])
            line = gpu_line(one, form(width, [one]), [None], [], NOW)
            assert "simulated" in text_of(line, width).lower()
    assert "simulated" in text_of(folded([simulated(0)]), 40)


def test_what_others_wrote_repaints_no_terminal() -> None:
    job = row(7, name="\x1b[31mred", user="a\nb")
    one = held(0, 7, processes=[process(command="\x1b]0;x\x07")], model="H\x1b100")
    wide = form(160, [one])
    assert text_of(gpu_line(one, wide, [job], [], NOW), 160).isprintable()


# ─── what is drawn ───────────────────────────────────────────────────────────────────────────────


def test_only_lines_that_changed_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def deed(screen: Screened) -> None:
        drawn: list[tuple[int, int]] = []
        strip = screen.app.screen.query_one(GpuStrip)

        def refresh(*regions: Region, **_: Any) -> None:
            drawn.extend((region.y, region.height) for region in regions)

        monkeypatch.setattr(strip, "refresh", refresh)
        screen.daemon.push(gpus=[held(1, 181, temperature_c=70)])
        await screen.until(lambda: drawn, "a line to be drawn")
        await screen.settle()
        assert drawn == [(2, 1)]
        screen.daemon.push(gpus=[held(1, 181, temperature_c=70)])
        screen.daemon.push(counts={"running": 7, "queued": 0, "queued_yours": 0})
        await screen.shows("7 running")
        assert drawn == [(2, 1)]

    gpus = [held(0, 181), held(1, 181)]
    screened(tmp_path, deed, size=(80, 30), jobs=JOBS, gpus=gpus)


class Moving:
    """A clock on the wall that the test moves."""

    def __init__(self) -> None:
        self.at = NOW

    def __call__(self) -> float:
        return self.at


def test_the_past_is_asked_once_and_goes_on_with_what_is_told(tmp_path: Path) -> None:
    clock = Moving()

    async def deed(screen: Screened) -> None:
        await screen.until(lambda: screen.daemon.requests("gpu_history"), "the past to be asked")
        await screen.until(lambda: "▃" in strip_of(screen), "the past to be seen")
        for util in (100, 50):
            clock.at += 60.0
            screen.daemon.push(gpus=[held(0, 181, utilization_percent=util)])
            await screen.shows(f"{util}%")
        assert "████████" in strip_of(screen), "it was so until it was told otherwise"
        assert len(screen.daemon.requests("gpu_history")) == 1

    past = history(**{"GPU-0": [30.0] * 300})
    screened(
        tmp_path,
        deed,
        size=(80, 30),
        jobs=JOBS,
        gpus=[held(0, 181)],
        answers={"gpu_history": past},
        signs=Signs(now=clock),
    )


def test_what_was_missed_is_asked_for(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        asked = screen.daemon.requests
        await screen.until(lambda: len(asked("gpu_history")) == 1, "the past to be asked")
        screen.daemon.hang_up()
        await screen.until(lambda: screen.app.lost is not None, "the loss to be noticed")
        await screen.until(lambda: len(asked("gpu_history")) == 2, "it to be asked again")

    screened(tmp_path, deed, size=(80, 30), jobs=JOBS, gpus=[held(0, 181)])
