"""What a job wrote is read once for each end, and none of it can be written so that this takes long."""

import pytest

from gpuq.core.ends.exhaustion import find_gpu_exhaustion
from gpuq.core.ends.last_output import LONGEST_LINE, clean_lines
from gpuq.core.model import Exit
from gpuq.core.results.signature import error_signature
from gpuq.core.states import conclude, explain


def test_an_output_is_cleaned_once_for_all_who_ask_why_the_job_ended() -> None:
    clean_lines.cache_clear()
    exit = Exit(exit_code=1, last_output="\x1b[31m(Engine pid=7) ValueError: bad shape\x1b[0m\n")
    outcome = conclude(exit)
    explain(exit, outcome)
    explain(exit, outcome, openly=True)
    assert error_signature(exit, outcome) == "ValueError: bad shape"
    assert clean_lines.cache_info().misses == 1


@pytest.mark.parametrize(
    "prefix",
    [
        "[rank12]: ",
        "(EngineCore_0 pid=2651) ",
        "(RayTrainWorker pid=412, ip=10.0.0.7) ",
        "(EngineCore_0 pid=2651) ERROR 05-08 11:47:02 [core.py:1136] ",
        "  | ",
    ],
)
def test_the_prefixes_of_launchers_are_taken_off(prefix: str) -> None:
    assert clean_lines(f"{prefix}ValueError: x\n{prefix}\n") == ("ValueError: x",)


@pytest.mark.parametrize(
    "line",
    [
        "(pid=" + "1" * 40 + ") x",
        "(" + "a" * 200 + "pid=1) x",
        "(pid=1, " + "a" * 200 + ") x",
        "(pid=1 pid=1" + " " * 200 + ") x",
        "[rank" + "1" * 40 + "]: x",
        "[core.py" + "a" * 40 + "1]: x",
    ],
    ids=lambda line: line[:12],
)
def test_a_prefix_is_short_so_that_looking_for_one_is(line: str) -> None:
    assert clean_lines(line) == (line,)


def test_a_line_is_cut_before_anything_is_looked_for_in_it() -> None:
    prefix = "(Engine pid=7) "
    (line,) = clean_lines(prefix + "x" * LONGEST_LINE)
    assert line == "x" * (LONGEST_LINE - len(prefix))
    assert clean_lines(" " * LONGEST_LINE + "x") == ()


def test_the_frames_of_c_plus_plus_below_the_words_do_not_count() -> None:
    frame = "./train(_ZN3c105Error+0x12) [0x7f00aa]\n"
    words = "RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB\n"
    assert find_gpu_exhaustion(words + frame * 60) == words.strip()
    nested = "a(" * 30 + "x) [0x7f\n"
    assert find_gpu_exhaustion(words + nested * 60) is None
