"""What the pane about a job is made of: values in, lines out."""

import time
from collections.abc import Sequence
from typing import Any

import pytest

from gpuq.cli.render import width
from gpuq.errors import NothingMatched
from gpuq.tui.data.detail.env_lines import EVERY_JOB_HAS
from gpuq.tui.data.detail.graph import graph_lines, graph_rows, held
from gpuq.tui.data.detail.group_summary import goal_of
from gpuq.tui.data.detail.known import MOST_KEPT, Kept, Known
from gpuq.tui.data.detail.need_tree import DEEPEST, MOST_JOBS, need_lines, needs_around
from gpuq.tui.data.detail.process_tree import cpu_percents, process_lines
from gpuq.tui.data.detail.summary import head, rest
from gpuq.tui.data.pieces import Pieces, facts, said
from tests.cli.said import GIB, Said, attempt, ended, in_full, job, running
from tests.tui.screened import row

NOW = 2000.0


@pytest.fixture(autouse=True)
def in_greenwich(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


def text(lines: Sequence[Pieces]) -> list[str]:
    return ["".join(part for part, _ in line) for line in lines]


# ─── what is known ───────────────────────────────────────────────────────────────────────────────


def test_what_was_told_is_newer_than_what_was_asked_but_knows_less_of_the_command() -> None:
    told = row(7, state="running", command=["python"], progress=0.5)
    asked = in_full(job(7, command=["python", "train.py"], progress=0.4, cwd="/x"))
    known = Known(row=told, answers={"show": asked})
    assert known.job["progress"] == 0.5
    assert known.job["command"] == ["python", "train.py"]
    assert Known(row=told).job == told
    wrong = Known(row=told, answers={"show": NothingMatched("no job 7")})
    assert (wrong.answer("show"), wrong.trouble("show")) == (None, "no job 7")


def test_the_oldest_answers_are_forgotten_and_the_one_before_is_kept() -> None:
    kept = Kept()
    for number in range(MOST_KEPT + 1):
        kept.ask(("show", number), {}, now=number)
        kept.take(("show", number), number)
    assert kept.get(("show", 0)) is None
    kept.ask(("show", 1), {}, now=99.0)
    entry = kept.get(("show", 1))
    assert entry is not None
    assert (entry.answer, entry.is_under_way) == (1, True), "until there is another"
    kept.take(("show", 1), "new")
    assert (entry.answer, entry.before, entry.is_under_way) == ("new", 1, False)
    kept.take(("show", 0), "late")
    assert kept.get(("show", 0)) is None


# ─── lines ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("room", [12, 20, 39, 78])
def test_no_line_is_wider_than_the_pane(room: int) -> None:
    long = running(
        command=["python", "x" * 90, "--name", "日本語のとても長い名前"],
        tags=["a" * 50],
        metrics={"loss": 0.25},
        progress=0.3,
        cwd="/" + "y" * 70,
    )
    whole = in_full(long, attempts=[attempt()], env_names=[])
    lines = [*head(long, NOW, room), *rest(whole, NOW, room)]
    assert max(width(line) for line in text(lines)) <= max(room, 14 + 8)


def test_a_value_stands_behind_its_name_and_goes_on_below_itself() -> None:
    assert text(said("cmd", "python train.py --lr 3", 16)) == [
        "cmd  python",
        "     train.py",
        "     --lr 3",
    ]
    assert text(facts([("ab", ""), ("cd", ""), ("efghijk", "")], 9)) == ["ab · cd", "efghijk"]


def test_signs_that_would_move_the_cursor_are_told_and_not_done() -> None:
    evil = running(command=["sh", "\x1b[2J"], cwd="/a\nb", tags=["\x07"])
    lines = text([*head(evil, NOW, 60), *rest(in_full(evil, env_names=[]), NOW, 60)])
    assert all(line.isprintable() for line in lines)


def test_the_first_line_of_a_job_says_what_it_does() -> None:
    def first(told: Said) -> str:
        return text(head(told, NOW, 200))[0]

    assert first(running()) == "RUNNING on GPU 0 · started 00:32:20 · 1:00 · pid 4711"
    assert first(ended()) == "failed: exit code 1 · ran 1:00 on GPU 0 · ended 00:33:20"
    waits = job(gpu_count=2, gpu_mem_bytes=60 * GIB, reason="behind 184", submitted_at=1940.0)
    assert first(waits) == "queued · queued 00:32:20 · needs 2 GPUs ≥60G · behind 184"
    soon = waits | {"expected_start": 5600.0, "expected_start_from": "median of 6"}
    assert first(soon).endswith(" · behind 184 · starts ~01:33 (median of 6)")
    shared = running(exclusive=False, gpu_mem_bytes=8 * GIB) | {"gpus_simulated": True}
    assert first(shared).startswith("RUNNING on simulated GPU 0 (shared, 8G) · ")
    assert first(job(gpu_count=0)).split(" · ")[2] == "needs 1 CPU"


def test_an_attempt_says_how_it_ended_and_what_it_said() -> None:
    failed = attempt(reason="it ended by itself") | {"error_signature": "ValueError: x"}
    lines = text(rest(in_full(ended(), attempts=[failed], env_names=[]), NOW, 80))
    assert "attempt 1 failed: it ended by itself (exit code 1)" in lines
    assert "  said ValueError: x" in lines
    assert any("largest process 3G" in line for line in lines)


# ─── processes ───────────────────────────────────────────────────────────────────────────────────


def process(pid: int, ppid: int, **changes: Any) -> Said:
    plain: Said = {"pid": pid, "ppid": ppid, "state": "S", "command": ["sh"], "cpu_s": 1.0}
    return plain | {"rss_bytes": GIB, "gpu_memory_bytes": None} | changes


def found(*listed: Said, at: float = 10.0, number: int = 1) -> Said:
    return {"attempt": number, "at": at, "processes": list(listed), "left_out": 0, "why": None}


def test_children_stand_below_their_parents() -> None:
    lines = process_lines(
        found(process(1, 0), process(2, 1), process(3, 2), process(4, 1), process(9, 8)),
        None,
        60,
        is_tree=True,
    )
    assert [line.split(" sh")[0] for line in text(lines)[:-1]] == [
        "├ 1",
        "│ ├ 2",
        "│ │ └ 3",
        "│ └ 4",
        "└ 9",
    ]
    assert text(lines)[-1] == "5 processes, 5G in memory"


def test_a_program_is_called_without_its_folder_and_a_title_as_it_is() -> None:
    lines = process_lines(
        found(
            process(1, 0, command=["/usr/bin/python3", "/x/y.py"]),
            process(2, 0, command=["ray::worker at /tmp/x"]),
            process(3, 0, command=[]),
        ),
        None,
        90,
        is_tree=True,
    )
    assert [line[4:28].rstrip() for line in text(lines)[:3]] == [
        "python3 /x/y.py",
        "ray::worker at /tmp/x",
        "–",
    ]


def test_pids_of_two_moments_that_make_a_ring_are_shown_all_the_same() -> None:
    lines = process_lines(
        found(process(1, 2), process(2, 1), process(3, 0)), None, 60, is_tree=True
    )
    assert [line.split()[:2] for line in text(lines)[:-1]] == [["└", "3"], ["?", "1"], ["?", "2"]]


def test_how_busy_one_is_needs_two_answers_of_the_same_process() -> None:
    before = found(process(1, 0, cpu_s=5.0), process(2, 0, cpu_s=5.0), at=10.0)
    now = found(process(1, 0, cpu_s=7.0), process(2, 0, cpu_s=1.0), process(3, 0), at=14.0)
    assert cpu_percents(now, before) == {1: 50.0, 2: None, 3: None}
    assert cpu_percents(now, None) == {1: None, 2: None, 3: None}
    assert cpu_percents(now | {"attempt": 2}, before) == {1: None, 2: None, 3: None}
    assert cpu_percents(before, before) == {1: None, 2: None}, "no time has passed"


def test_as_a_list_those_stand_first_that_compute_most() -> None:
    before = found(process(1, 0, cpu_s=0.0), process(2, 1, cpu_s=0.0), at=0.0)
    now = found(process(1, 0, cpu_s=1.0), process(2, 1, cpu_s=9.0), at=10.0)
    lines = text(process_lines(now, before, 60, is_tree=False))
    assert [line.split()[0] for line in lines[:2]] == ["2", "1"]


# ─── what waits for what ─────────────────────────────────────────────────────────────────────────


def needs(jobs: str, when: str = "ok", state: str = "open") -> list[Said]:
    return [{"jobs": jobs, "when": when, "each": False, "state": state}]


def world(*jobs: Said, needed_by: dict[int, str] | None = None) -> tuple[Any, Any]:
    from gpuq.core.units import parse_ranges

    by_id = {one["id"]: one for one in jobs}
    behind = needed_by or {}

    def find(spans: str) -> list[Said]:
        return [by_id[n] for span in parse_ranges(spans) for n in span if n in by_id]

    return find, lambda number: by_id[number] | {"needed_by": behind.get(number)}


def test_what_it_waits_for_stands_above_and_what_waits_for_it_below() -> None:
    get, prep = job(1, name="get"), job(2, name="prep", after=needs("1", state="met"))
    fit, plot = job(3, name="fit", after=needs("2")), job(4, name="plot", after=needs("3", "any"))
    mail = job(5, name="mail", after=needs("4"))
    find, show = world(get, prep, fit, plot, mail, needed_by={3: "4", 4: "5"})
    lines = text(need_lines(needs_around(fit | {"needed_by": "4"}, find, show), 40))
    assert [" ".join(line.split()) for line in lines] == [
        "waits for",
        "└ 2 prep queued ok",
        "└ 1 get queued ok, met",
        "3 fit queued",
        "waited for by",
        "└ 4 plot queued any",
        "└ 5 mail queued ok",
    ]


def test_of_very_many_the_first_are_shown_and_the_others_counted() -> None:
    jobs = [job(n) for n in range(1, 1001)]
    last = job(2000, after=needs("1-1000"))
    find, show = world(*jobs, last)
    lines = text(need_lines(needs_around(last, find, show), 60))
    assert lines[-3] == "└ and 992 more"
    assert len(lines) < 15


def test_it_goes_no_deeper_and_asks_no_more_than_can_be_read() -> None:
    chain = [job(n, after=needs(str(n - 1)) if n > 1 else []) for n in range(1, 100)]
    find, show = world(*chain)
    around = needs_around(chain[-1], find, show)
    depth, branches = 0, around.waits_for
    while branches:
        depth, branches = depth + 1, branches[0].below
    assert depth == DEEPEST
    wide = [job(n, after=needs("1-99")) for n in range(100, 300)]
    asked = []
    find, show = world(*chain, *wide)

    def counting(spans: str) -> list[Said]:
        found = find(spans)
        asked.append(spans)
        return found

    needs_around(job(999, after=needs("100-299")), counting, show)
    assert len(asked) <= MOST_JOBS + 1


# ─── graphs ──────────────────────────────────────────────────────────────────────────────────────


def measured(points: list[Any], **changes: Any) -> Said:
    quantity = {"min": 1.0, "mean": 1.0, "max": 2.0, "points": points}
    told: Said = {"job": 1, "attempt": 1, "simulated": False, "why": None, "width_s": 1.0}
    told |= {"started_at": 1000.0, "ended_at": 1100.0}
    return told | {"quantities": {"gpu_memory_bytes": quantity}} | changes


def test_a_reading_holds_until_the_next_one_unless_that_is_long_in_coming() -> None:
    points = [(0, 1.0, 1.0, 1), (5, 2.0, 2.0, 1), (60, 3.0, 3.0, 1)]
    values = held(points, 1.0, 100.0)
    assert (values[4], values[5], values[19]) == (1.0, 2.0, 2.0)
    assert (values[20], values[59], values[60]) == (None, None, 3.0)
    assert values[74:] == [3.0] + [None] * 25
    assert held(points, 64.0, 100.0) == [1.0, None], "one stretch at the least, and none beyond"


def test_a_gap_is_said_and_only_where_there_is_one() -> None:
    whole = [(n, 1.0, 1.0, 1) for n in range(100)]
    for points, is_said in ((whole, False), ([*whole[:10], *whole[50:]], True)):
        lines = text(graph_lines(measured(points), 1100.0, 60, 20))
        assert any("nothing was read" in line for line in lines) is is_said


def test_without_a_point_it_is_said_why() -> None:
    none = measured([], quantities={}, why="it has not begun")
    assert text(graph_lines(none, 0.0, 60, 20)) == ["No graph: it has not begun."]
    assert graph_rows(none) == []


def test_plots_have_as_many_lines_as_there_is_room_for() -> None:
    points = [(n, 1.0, 1.0, 1) for n in range(100)]
    for height in (4, 8, 100):
        lines = text(graph_lines(measured(points), 1100.0, 60, height))
        plotted = [line for line in lines if "│" in line or "┤" in line]
        assert len(plotted) == min(max(height - 3, 2), 8)
        assert all(width(line) <= 60 for line in lines)


# ─── the rest ────────────────────────────────────────────────────────────────────────────────────


def test_by_which_metric_the_best_is_told() -> None:
    assert [goal_of(names) for names in ([], ["acc", "loss"], ["val_loss"])] == [
        None,
        "acc:max",
        "val_loss:min",
    ]


def test_every_variable_that_a_job_finds_is_told() -> None:
    import re
    from pathlib import Path

    import gpuq.daemon.order

    written = Path(gpuq.daemon.order.__file__).read_text()
    set_there = set(re.findall(r'"(GPUQ_[A-Z_]+)"', written)) | {"CUDA_VISIBLE_DEVICES"}
    assert set_there <= EVERY_JOB_HAS.keys()
