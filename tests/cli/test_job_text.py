"""Jobs as people read them."""

import shlex

import pytest

from gpuq.cli.job_options import describe
from gpuq.cli.job_page import attempt_table, job_fields
from gpuq.cli.job_text import (
    LETTERS,
    farewell,
    greeting,
    job_row,
    job_table,
    metrics_of,
    parameters_of,
    why_lines,
)
from gpuq.cli.render import Look
from gpuq.cli.submit_again import exact_size, submit_line
from gpuq.core.model import JobState, Outcome, Substate
from tests.cli.said import GIB, attempt, ended, gpu, in_full, job, running

LOOK = Look(width=80, user="alice", now=2000.0)


def shown(*jobs: dict[str, object], look: Look = LOOK) -> str:
    return "\n".join(job_table(jobs, look))


def test_the_list_says_what_runs_where_and_what_waits_for_what() -> None:
    jobs = [
        running(181, name="vit-b", gpus=[0, 1], gpu_count=2),
        job(184, name="sweep-3", gpu_count=2, priority=10, reason="wants 2 GPUs, 0 free"),
        job(186, name="sweep-5", reason="behind 184"),
    ]
    assert (
        shown(*jobs)
        == """\
ID   ST  NAME     GPU  PRI  TIME  COMMAND / REASON
181  R   vit-b    0,1    0  1:00  python train.py
184  Q   sweep-3  x2    10     -  wants 2 GPUs, 0 free
186  Q   sweep-5  x1     0     -  behind 184"""
    )


HIDDEN = {"user": "bob", "name": "", "command": [], "cwd": "", "hidden": True}


def test_what_runs_for_another_who_keeps_it_to_himself_is_his() -> None:
    assert (
        shown(running(1, name="mine"), running(2, gpus=[1], **HIDDEN), job(3, **HIDDEN))
        == """\
   ID  ST  NAME  USER   GPU  TIME  COMMAND / REASON
*  1   R   mine  alice  0    1:00  python train.py
   2   R         bob    1    1:00  (bob's)
   3   Q         bob    x1      -  wants 1 GPU, 0 free"""
    )


def test_a_hidden_job_in_full_says_so_and_cannot_be_submitted_again() -> None:
    fields = dict(job_fields(in_full(job(184, **HIDDEN))))
    assert fields["job"] == "184"
    assert fields["hidden"] == "what it runs and where is bob's to see"
    assert "command" not in fields
    (sentence,) = why_lines(in_full(job(184, **HIDDEN)), LOOK, simulated=False)
    assert sentence == "Job 184 (bob's) waits: wants 1 GPU, 0 free."
    assert "hidden" not in dict(job_fields(in_full(job())))


def test_a_list_of_cpu_jobs_of_my_own_needs_few_columns() -> None:
    assert (
        shown(job(1, gpu_count=0, name="prep", reason="behind 0"))
        == """\
ID  ST  NAME  COMMAND / REASON
1   Q   prep  behind 0"""
    )


def test_among_others_jobs_my_own_are_marked() -> None:
    assert (
        shown(running(1, name="mine"), running(2, name="hers", user="bob", gpus=[1]))
        == """\
   ID  ST  NAME  USER   GPU  TIME  COMMAND / REASON
*  1   R   mine  alice  0    1:00  python train.py
   2   R   hers  bob    1    1:00  python train.py"""
    )


def test_where_all_are_somebody_elses_the_list_says_whose() -> None:
    assert "USER" in shown(running(2, user="bob")).splitlines()[0]


def test_what_ended_badly_shows_its_code_or_its_signal() -> None:
    lines = shown(
        ended(1),
        ended(2, exit_code=None, signal=9),
        ended(3, outcome="succeeded", exit_code=0),
    ).splitlines()
    assert [line.split()[1] for line in lines[1:]] == ["F", "F", "C"]
    assert [line.split()[5] for line in lines[1:]] == ["1", "SIGKILL", "python"]


def test_a_job_that_is_being_ended_says_so_in_place_of_its_command() -> None:
    line = shown(running(7, substate="stopping", reason="KILL in 8 s")).splitlines()[1]
    assert line == "7   K   job-7  0    1:00  KILL in 8 s"


def test_every_word_for_a_job_has_a_letter() -> None:
    words = {*JobState, *Substate, *Outcome} - {JobState.ENDED}
    assert set(LETTERS) == words
    assert len({letter for letter, _ in LETTERS.values()}) == len(LETTERS)


def test_a_clock_set_back_shows_no_negative_time() -> None:
    assert "0.0s" in shown(running(1, started_at=2001.0))


def test_on_a_pipe_all_columns_are_there_always() -> None:
    assert job_row(running(181, gpus=[0, 1])) == (
        "181\trunning\t\t\tjob-181\talice\t0,1\t0\t1970-01-01T00:32:20Z\t\t\tpython train.py"
    )
    assert job_row(job(184, gpu_count=0, reason=None)) == (
        "184\tqueued\t\t\tjob-184\talice\t-\t0\t\t\t\tpython train.py"
    )


def test_a_command_with_newlines_and_bytes_stays_on_its_line() -> None:
    row = job_row(job(1, command=["python", "-c", "a\nb", "\udcff"]))
    assert row.endswith("\tpython -c $'a\\nb' $'\\xff'")
    assert row.count("\t") == 11


@pytest.mark.parametrize(
    ("view", "sentence"),
    [
        (job(184, reason="2 GPUs, behind 1 job"), "Job 184 queued: 2 GPUs, behind 1 job"),
        (running(184, gpus=[0, 1]), "Job 184 running on GPUs 0,1"),
        (running(184, state="starting"), "Job 184 starting on GPU 0"),
        (running(184, gpu_count=0, gpus=[]), "Job 184 running"),
        (ended(184), "Job 184 failed: exit code 1"),
    ],
)
def test_the_greeting_says_what_became_of_a_submission(view: dict, sentence: str) -> None:
    assert greeting(view, simulated=False) == sentence


def test_the_greeting_says_simulated() -> None:
    assert greeting(running(1), simulated=True) == "Job 1 running on simulated GPU 0"


def test_the_farewell_says_nothing_twice() -> None:
    assert farewell(ended(1, outcome="succeeded", exit_code=0, reason="exit code 0")) == (
        "Job 1 succeeded"
    )
    cancelled = ended(1, outcome="cancelled", exit_code=None, signal=15)
    assert farewell(cancelled | {"reason": "cancelled by bob: ended by SIGTERM"}) == (
        "Job 1 cancelled by bob: ended by SIGTERM"
    )
    assert farewell(ended(1, outcome="timed_out", reason="ran over 2h")) == (
        "Job 1 timed out: ran over 2h"
    )


def test_why_answers_in_sentences() -> None:
    waiting = in_full(job(184), place=3)
    assert why_lines(waiting, LOOK, simulated=False) == [
        "Job 184 (job-184) waits: wants 1 GPU, 0 free.",
        "It is the 3rd of those that ask for the same.",
    ]
    assert why_lines(in_full(running(181)), LOOK, simulated=True) == [
        "Job 181 (job-181) is running on simulated GPU 0, for 1:00 now."
    ]
    assert why_lines(in_full(ended(179)), LOOK, simulated=False) == ["Job 179 failed: exit code 1."]


def test_show_has_every_field_that_says_something_with_its_unit() -> None:
    pairs = dict(job_fields(in_full(running(181, gpu_mem_bytes=20 * GIB, tags=["a", "b"]))))
    assert pairs["job"] == "181 job-181"
    assert pairs["state"] == "running"
    assert pairs["gpu mem"] == "20G"
    assert pairs["grace"] == "0:10"
    assert pairs["tags"] == "a,b"
    assert pairs["on gpu"] == "0"
    assert "outcome" not in pairs
    assert "mem" not in pairs


MEASURED: dict[str, object] = {
    "gpu_mem_bytes": 8 * GIB,
    "gpu_peak_bytes": 6 * GIB + GIB // 10,
    "gpu_util_mean": 70.6,
    "gpu_util_peak": 98,
    "gpu_energy_j": 0.42 * 3.6e6,
}
TROUBLED: dict[str, object] = {
    "idle": True,
    "idle_since_at": 0.0,
    "contended": True,
    "contended_now": True,
    "contended_at": 0.0,
    "contended_by": "python 40121 carol (docker 3f2a9c1b7d44) on GPU 0",
    "over_memory": "it used 7.1G of GPU 0 and asked for 6G",
    "gpu_errors": ["XID 31 on GPU 0: a memory access of the job was wrong"],
}


def test_show_tells_in_a_line_what_a_job_made_of_its_gpus() -> None:
    pairs = dict(job_fields(in_full(running(181, **MEASURED))))
    assert pairs["gpu use"] == "peak 6.1G of 8G asked, mean 71 %, peak 98 %, 0.42 kWh"
    assert not {"gpu peak", "gpu util mean", "idle", "contended", "over memory"} & set(pairs)
    alone = dict(MEASURED, gpu_mem_bytes=None, gpu_util_mean=None, gpu_util_peak=None)
    assert dict(job_fields(in_full(running(181, **alone))))["gpu use"] == "peak 6.1G, 0.42 kWh"
    assert "gpu use" not in dict(job_fields(in_full(running(181))))


def test_show_tells_who_is_idle_disturbed_and_over_its_memory() -> None:
    pairs = dict(job_fields(in_full(running(181, **TROUBLED))))
    assert pairs["idle"].startswith("since ")
    assert pairs["idle"].endswith(": it holds its GPUs and computes nothing")
    assert pairs["contended"].startswith("python 40121 carol (docker 3f2a9c1b7d44) on GPU 0, seen")
    assert pairs["contended"].endswith(", and somebody is there still")
    assert pairs["over memory"] == "it used 7.1G of GPU 0 and asked for 6G"
    left = dict(job_fields(in_full(running(181, **dict(TROUBLED, contended_now=False)))))
    assert not left["contended"].endswith("still")


def test_why_a_running_job_is_slow_or_wastes_its_gpus_is_said_too() -> None:
    lines = why_lines(in_full(running(181, **TROUBLED)), LOOK, simulated=False)
    assert lines[1].startswith("It holds its GPUs and has computed nothing since ")
    assert lines[2:] == [
        "Somebody outside gpuq is there too: python 40121 carol (docker 3f2a9c1b7d44) on GPU 0.",
        "It used 7.1G of GPU 0 and asked for 6G.",
        "The driver told of XID 31 on GPU 0: a memory access of the job was wrong.",
    ]
    left = in_full(running(181, **dict(TROUBLED, contended_now=False)))
    assert "Somebody outside gpuq was there too" in why_lines(left, LOOK, simulated=False)[2]
    assert len(why_lines(in_full(ended(179, **TROUBLED)), LOOK, simulated=False)) == 1


def test_why_names_the_gpus_that_are_lost_under_a_running_job() -> None:
    view = in_full(running(181, gpus=[0, 1], gpu_count=2, gpu_uuids=["GPU-0", "GPU-1"]))
    lost = gpu(1, state="lost", reason="it has fallen off the bus")
    elsewhere = gpu(2, state="lost", reason="not its own")
    gpus = [gpu(0, state="leased"), lost, elsewhere]
    lines = why_lines(view, LOOK, simulated=False, gpus=gpus)
    assert lines[1:] == ["GPU 1: it has fallen off the bus."]


def test_the_list_marks_who_is_idle_and_who_is_disturbed_just_now() -> None:
    def mark(**changes: object) -> str:
        return shown(running(1, **changes)).splitlines()[1].split("1:00  ")[1]

    assert mark() == "python train.py"
    assert mark(**TROUBLED) == "[idle, contended] python train.py"
    assert mark(**dict(TROUBLED, idle=False)) == "[contended] python train.py"
    assert mark(**dict(TROUBLED, contended_now=False)) == "[idle] python train.py"
    assert mark(substate="stopping", reason="KILL sent", **TROUBLED) == "KILL sent"


def test_a_list_of_a_daemon_that_measures_nothing_yet_is_shown_too() -> None:
    old = {name: value for name, value in running(1).items() if name not in {*TROUBLED, *MEASURED}}
    older = in_full(old | {"gpu_mem_bytes": None})
    assert shown(older).endswith("python train.py")
    assert why_lines(older, LOOK, simulated=False) == [
        "Job 1 (job-1) is running on GPU 0, for 1:00 now."
    ]
    assert "gpu use" not in dict(job_fields(older))


def test_each_attempt_tells_what_it_used_of_a_gpu() -> None:
    wide = LOOK._replace(width=200)
    head, first, second = attempt_table([attempt(gpu_peak_bytes=7 * GIB), attempt()], wide)
    assert "GPU PEAK" in head
    assert "7G" in first.split()
    assert "GPU PEAK" not in attempt_table([attempt()], wide)[0]
    assert "–" in second


def test_show_keeps_what_a_newer_daemon_adds() -> None:
    pairs = dict(job_fields(in_full(job()) | {"heartbeat_at": 0.0, "mood": {"calm": 1}}))
    assert "heartbeat" in pairs
    assert pairs["mood"] == "calm=1"


@pytest.mark.parametrize(
    ("changes", "end"),
    [
        ({}, "exit code 1"),
        ({"outcome": "lost", "reason": "lost: power cut"}, "lost: power cut"),
        ({"outcome": "timed_out", "reason": None}, "timed out"),
        ({"exit_code": None, "ended_at": None}, "-"),
        ({"ended_at": None, "unkillable": "cp (pid 7) hangs"}, "cp (pid 7) hangs"),
    ],
)
def test_each_attempt_tells_its_end(changes: dict, end: str) -> None:
    assert attempt_table([attempt(**changes)], LOOK._replace(width=200))[1].endswith(f"  {end}")


def test_show_says_what_a_bound_is_worth() -> None:
    asked = {"mem_bytes": 8 * GIB, "cpus": 4, "cpu_bound": 4, "memory_peak_bytes": 2 * GIB}
    held = running(181, mem_bound_by="kernel", cpu_bound_by="kernel", **asked)
    pairs = dict(job_fields(in_full(held)))
    assert (pairs["memory"], pairs["memory peak"], pairs["cpus"]) == ("8G", "2G", "4")
    watched = running(181, mem_bound_by="watched", cpu_bound_by="nobody", **asked)
    pairs = dict(job_fields(in_full(watched)))
    assert pairs["memory"] == "8G, watched once a second and not enforced by the kernel"
    assert pairs["cpus"] == "4, not enforced"
    assert " -c 4 --mem 8G " in shlex.join(submit_line(in_full(watched)))
    assert " -c 1 " in shlex.join(submit_line(in_full(running(181, cpu_bound=1))))
    assert not {"memory", "memory peak"} & dict(job_fields(in_full(running(181)))).keys()
    told = attempt_table([attempt(memory_peak_bytes=2 * GIB)], LOOK._replace(width=200))
    assert "MEMORY" in told[0]
    assert "2G" in told[1].split()


@pytest.mark.parametrize(
    "size",
    [64 * 2**20, 3 * 2**19 + 1, 20 * GIB, 3 * GIB // 2, 500 * 2**20, 1395864371, 80 * 10**9],
)
def test_a_size_is_written_so_that_it_reads_back(size: int) -> None:
    assert describe(["true"], gpu_mem=exact_size(size))["gpu_mem_bytes"] == size


def test_the_line_that_submits_again_says_all_that_is_known() -> None:
    line = submit_line(
        job(
            1,
            name="vit b",
            gpu_count=2,
            gpu_mem_bytes=20 * GIB,
            exclusive=True,
            gpu_model="H100",
            priority=-3,
            tags=["x"],
            command=["python", "-c", "print(1)"],
        )
    )
    assert shlex.join(line) == (
        "gpuq submit -g 2 -n 'vit b' --gpu-mem 20G --exclusive --gpu-model H100 -p -3 --tag x "
        "-C /home/alice/vit -- python -c 'print(1)'"
    )


def test_who_asked_for_what_was_learned_asks_for_it_again() -> None:
    words = "asks for 7.5G: it used 6G at most before (job 181, 3 runs)"
    auto = job(1, gpu_mem_bytes=15 * GIB // 2, exclusive=False, gpu_mem_from=words)
    assert "--gpu-mem auto" in shlex.join(submit_line(auto))
    assert dict(job_fields(in_full(auto)))["gpu mem from"] == words
    alone = shlex.join(submit_line(dict(auto, gpu_mem_bytes=None, exclusive=True)))
    assert "--gpu-mem auto" in alone
    assert "--exclusive" not in alone


def test_names_and_texts_that_could_be_taken_for_several_stand_in_quotes() -> None:
    told = job(1, metrics={"my loss": 3, "s": "a=b", "plain": 0.5, "empty": ""})
    assert metrics_of(told) == '"my loss"=3 s="a=b" plain=0.5 empty=""'
    assert parameters_of(job(1, parameters={"lr": "0.1", "w": "a b"})) == 'lr=0.1 w="a b"'


def test_a_job_that_made_do_with_the_cpu_says_so_after_its_end() -> None:
    turned = {"cpu_fallback": {"gpus": 4}, "cpu_after_s": 60.0, "gpus": []}
    made_do = "It had waited 1:00 for 4 GPUs and made do with the CPU."
    assert why_lines(ended(1, **turned), Look(), simulated=False)[1:] == [made_do]
    never = ended(1, **turned, started_at=None, outcome="cancelled")
    assert len(why_lines(never, Look(), simulated=False)) == 1


@pytest.mark.parametrize("width", [80, 100])
def test_a_long_name_breaks_no_list(width: int) -> None:
    lines = job_table([ended(1, name=63 * "n"), running(2)], Look(width=width))
    assert max(map(len, lines)) <= width
    assert "python train.py" in lines[1]


def test_why_tells_what_a_program_said_and_where_the_rest_stands() -> None:
    failed = in_full(
        ended(), error_signature="ValueError: bad shape # in train.py:31", log="/state/log"
    )
    first, *more = why_lines(failed, LOOK, simulated=False)
    assert first.startswith("Job 179 failed: exit code 1")
    assert more == [
        "It said: ValueError: bad shape # in train.py:31.",
        "What it wrote: gpuq logs 179",
    ]
    silent = in_full(ended(), error_signature="exit code 1", log="/state/log")
    assert why_lines(silent, LOOK, simulated=False)[1:] == ["What it wrote: gpuq logs 179"]
    hidden = in_full(ended(), error_signature=None, log=None)
    assert len(why_lines(hidden, LOOK, simulated=False)) == 1
