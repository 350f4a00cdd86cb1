"""What a client says of arrays and scripts is held to what they can be, whoever the client is."""

from typing import Any

import pytest

from gpuq.core.asked.elements import Element
from gpuq.core.asked.spec import Spec, read_spec
from gpuq.errors import UsageError

SPAN = [0, 4, 1]


def read(**fields: Any) -> Spec:
    wire = {"argv": ["true"], "cwd": "/", "env_hash": "ab" * 32} | fields
    return read_spec(wire, default_gpus=1, grace_s=10.0)


def array(**fields: Any) -> dict[str, Any]:
    return {"indices": [SPAN]} | fields


def test_an_array_is_as_many_jobs_as_it_has_elements() -> None:
    spec = read(array=array(indices=[[0, 1_000_000, 1]], max_running=4))
    assert (spec.count, spec.max_running) == (1_000_000, 4)


def test_a_job_that_is_none_is_one() -> None:
    assert read().count == 1
    assert read().elements is None


def test_each_element_has_its_parameters() -> None:
    grid = read(array=array(axes=[["lr", ["a", "b"]], ["n", ["1", "2"]]])).elements
    assert grid is not None
    assert grid.at(2) == Element(2, {"lr": "b", "n": "1"})
    table = read(array=array(indices=[[5, 7, 1]], columns=["lr"], rows=[["x"], ["y"]]))
    assert table.elements is not None
    assert table.elements.at(1, table.rows[1]) == Element(6, {"lr": "y"})


@pytest.mark.parametrize(
    "hostile",
    [
        [],
        "0-4",
        {},
        array(indices=[]),
        array(indices=[[0, 4]]),
        array(indices=[[0, 4, 0]]),
        array(indices=[[4, 0, 1]]),
        array(indices=[[0, 4, -1]]),
        array(indices=[[-4, 0, 1]]),
        array(indices=[[0.0, 4, 1]]),
        array(indices=[[False, True, True]]),
        array(indices=[["0", "4", "1"]]),
        array(indices=[[0, 2**40, 1]]),
        array(indices=[[0, 10**9, 1]]),
        array(indices=[[0, 10**7, 1], [0, 1, 1]]),
        array(indices=[SPAN] * 2_001),
        array(max_running=0),
        array(max_running=-1),
        array(max_running=1.5),
        array(max_running="4"),
        array(axes=[["lr", ["1", "2"]]]),
        array(axes=[["lr", []]]),
        array(axes=[["lr", "abcd"]]),
        array(axes=[["lr"]]),
        array(axes=[[1, ["1", "2", "3", "4"]]]),
        array(axes=[["i", ["1", "2", "3", "4"]]]),
        array(axes=[["a b", ["1", "2", "3", "4"]]]),
        array(axes=[["lr", [1, 2, 3, 4]]]),
        array(axes=[["lr", ["1", "2", "3", "\0"]]]),
        array(axes=[["lr", ["1", "2", "3", "x" * 70_000]]]),
        array(axes=[["lr", ["1", "2"]], ["LR", ["1", "2"]]]),
        array(columns=["lr"]),
        array(columns=["lr"], rows=[["1"]] * 3),
        array(columns=["lr"], rows=[["1"]] * 5),
        array(columns=["lr"], rows=[["1", "2"]] * 4),
        array(columns=["lr"], rows=["1"] * 4),
        array(columns=["lr"], rows=[[1]] * 4),
        array(rows=[["1"]] * 4),
        array(columns="lr", rows=[]),
    ],
)
def test_what_is_no_array_is_refused(hostile: Any) -> None:
    with pytest.raises(UsageError):
        read(array=hostile)


def test_what_is_refused_is_named_and_not_repeated_in_full() -> None:
    with pytest.raises(UsageError) as refused:
        read(array=array(indices=["x" * 100_000]))
    assert str(refused.value).startswith("array: 'xxx")
    assert len(str(refused.value)) < 200


def test_elements_do_not_write_over_each_other() -> None:
    with pytest.raises(
        UsageError, match=r"all 4 elements of the array would write there. Put \{i\}"
    ):
        read(array=array(), output="/tmp/log")
    with pytest.raises(UsageError, match="--stderr"):
        read(array=array(), output="/tmp/%a", stderr="/tmp/errors")
    for path in ("/tmp/{i}", "/tmp/%a", "/tmp/%A_%4a", "/tmp/%j/log", "/dev/null"):
        read(array=array(), output=path)
    read(array=array(indices=[[3, 4, 1]]), output="/tmp/log")


def test_those_of_slurm_may_as_they_may_there() -> None:
    assert read(array=array(), output="/tmp/log", as_slurm=True).output == b"/tmp/log"


def test_a_script_comes_with_its_interpreter() -> None:
    spec = read(script="#!/bin/sh\necho \udcff\n", interpreter=["/bin/sh", "-e"], as_slurm=True)
    assert spec.script == b"#!/bin/sh\necho \xff\n"
    assert spec.interpreter == (b"/bin/sh", b"-e")
    assert spec.as_slurm


@pytest.mark.parametrize(
    "hostile",
    [
        {"script": "x"},
        {"script": "x", "interpreter": []},
        {"script": "x", "interpreter": [""]},
        {"script": "x", "interpreter": ["a"] * 9},
        {"script": "x", "interpreter": "sh"},
        {"script": "x", "interpreter": [1]},
        {"script": 1, "interpreter": ["sh"]},
        {"script": "a\0b", "interpreter": ["sh"]},
        {"script": "\ud800", "interpreter": ["sh"]},
        {"script": "x" * (4 * 2**20 + 1), "interpreter": ["sh"]},
        {"interpreter": ["sh"]},
        {"as_slurm": 1},
        {"held": "yes"},
    ],
)
def test_what_is_no_script_is_refused(hostile: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        read(**hostile)
