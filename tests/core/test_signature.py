"""Alike ends have one signature, and other ends another."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuq.core.model import EndCause, Exit, Outcome
from gpuq.core.results.signature import LONGEST, error_signature, fold
from tests.builders import STEADY
from tests.core.test_exhaustion import TORCHRUN

FAILED = Outcome.FAILED


def traceback(error: str, *files: str) -> str:
    """Each file is "PATH:LINE"."""
    frames = "".join(
        '  File "{}", line {}, in f\n    f()\n'.format(*file.split(":")) for file in files
    )
    return f"Traceback (most recent call last):\n{frames}{error}\n"


def signature_of(output: str, **how: object) -> str | None:
    return error_signature(Exit(**{"exit_code": 1, "last_output": output, **how}), FAILED)  # type: ignore[arg-type]


def test_an_exception_is_told_with_the_line_of_the_users_own_code() -> None:
    output = "epoch 3\n" + traceback(
        "RuntimeError: size 12 does not match 13",
        "/home/alice/vit/main.py:7",
        "/home/alice/vit/train.py:31",
        "/usr/lib/python3.11/site-packages/torch/nn.py:912",
    )
    assert signature_of(output) == "RuntimeError: size # does not match # in train.py:31"


def test_where_all_is_a_librarys_the_innermost_line_is_told() -> None:
    output = traceback("OSError: x", "/opt/lib/python3.11/a.py:1", "/opt/lib/python3.11/b.py:2")
    assert signature_of(output) == "OSError: x in b.py:2"


def test_the_same_mistake_has_one_signature_whatever_its_numbers() -> None:
    told = {
        signature_of(
            traceback(
                f"ValueError: lr={lr} at 0x{address:x} in {folder}/ckpt_{step:05}.pt",
                f"{folder}/train.py:31",
            )
        )
        for lr, address, folder, step in [
            (0.1, 0x7F001234, "/home/alice/a", 1),
            ("-3e-05", 0xABC, "/scratch/bob/run_0031", 12345),
            (7, 0x1, "../out", 0),
        ]
    }
    assert told == {"ValueError: lr=# at # in …/ckpt_#.pt in train.py:31"}


def test_other_mistakes_and_other_lines_have_another() -> None:
    told = {
        signature_of(traceback(error, f"/a/train.py:{line}"))
        for error in (
            "KeyError: 'a'",
            "KeyError: 'b'",
            "OSError: [Errno 28] x",
            "OSError: [Errno 2] x",
        )
        for line in (31, 32)
    }
    assert len(told) == 8


def test_what_only_tells_of_another_process_is_not_the_cause() -> None:
    worker = "[rank1]: " + traceback("ValueError: bad", "/a/train.py:9").replace(
        "\n", "\n[rank1]: "
    )
    assert signature_of(worker + "\n" + TORCHRUN) == "ValueError: bad in train.py:9"


def test_a_traceback_that_the_program_outlived_is_not_the_cause() -> None:
    output = traceback("ValueError: tried", "/a/b.py:1") + "step\n" * 70 + "fatal: no data\n"
    assert signature_of(output) == "fatal: no data"


@pytest.mark.parametrize(
    ("output", "told"),
    [
        ("bash: line 1: trian: command not found\n", "bash: line #: trian: command not found"),
        ("2026-11-22 14:57:23,123 ERROR no space in /data/x\n", "ERROR no space in …/x"),
        (
            "thread 'main' panicked at src/main.rs:31:5: index 7\nnote: run with RUST_BACKTRACE\n",
            "thread 'main' panicked at src/main.rs:31:5: index #",
        ),
        ("epoch 4 loss 0.31, error rate 0.02\n", "exit code 1"),
        ("done\n", "exit code 1"),
        ("", "exit code 1"),
    ],
)
def test_without_a_traceback_the_last_line_that_speaks_of_an_error_is_told(
    output: str, told: str
) -> None:
    assert signature_of(output) == told


def test_a_signal_is_told_by_its_name() -> None:
    assert signature_of("", exit_code=None, signal=11) == "killed by SIGSEGV"


def test_an_end_without_a_program_of_its_own_says_what_befell_it() -> None:
    lost = Exit(lost="its runner 4242 is gone")
    assert error_signature(lost, Outcome.LOST) == "lost: its runner # is gone"
    no_start = Exit(exit_code=127, stage="running python", error="/a/b/python: no such file")
    told = "could not start: running python: …/python: no such file"
    assert error_signature(no_start, FAILED) == told
    assert error_signature(Exit(signal=9), Outcome.OUT_OF_MEMORY) == "out of memory"


@pytest.mark.parametrize("cause", [cause for cause in EndCause if cause is not EndCause.ASKED])
def test_what_gpuq_ended_has_the_cause_and_not_the_words_of_its_death(cause: EndCause) -> None:
    if cause in (EndCause.PREEMPTED, EndCause.REQUEUED):
        assert error_signature(Exit(signal=15), Outcome.CANCELLED, ending=cause) is None
        return
    died = Exit(exit_code=1, last_output=traceback("KeyboardInterrupt", "/a/b.py:1"))
    told = error_signature(died, Outcome.TIMED_OUT, ending=cause)
    assert told is not None
    assert "Keyboard" not in told


@pytest.mark.parametrize("outcome", [Outcome.SUCCEEDED, Outcome.CANCELLED, Outcome.SKIPPED])
def test_what_went_as_it_was_wanted_has_none(outcome: Outcome) -> None:
    assert error_signature(Exit(exit_code=0, last_output="Error: x"), outcome) is None


def test_hashes_ids_and_temporary_names_are_folded() -> None:
    uuid = "6b1f4a6e-1b2c-4d5e-8f90-0123456789ab"
    assert fold(f"GPU-{uuid} of deadbeef12 in /tmp/tmpab3x9k2_/x") == "GPU-# of # in …/x"
    assert fold("float16 on cuda:0 in worker12") == "float16 on cuda:# in worker#"


@STEADY
@given(st.text(max_size=3000), st.integers(0, 255))
def test_no_output_breaks_it_or_makes_it_long(output: str, code: int) -> None:
    for tail in (output, traceback(output, "/a/b.py:1"), "Error: " + output):
        told = error_signature(Exit(exit_code=code, last_output=tail), FAILED)
        assert told
        assert len(told) <= LONGEST
        assert told.isprintable()


@pytest.mark.parametrize("sign", ["/", "a/", "0x", "1", "deadbeef", "Error ", " ", "\x1b["])
def test_no_line_takes_long_to_fold(sign: str) -> None:
    assert signature_of("Error: " + sign * 20_000)
