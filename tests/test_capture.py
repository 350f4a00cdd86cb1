"""What a submit takes over from its process, as it is when it is made."""

import os
import resource

import pytest

from gpuq import capture


def test_a_variable_that_is_set_later_is_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    before = capture.environment_now()
    assert capture.environment_now() is before, "nothing was set"
    monkeypatch.setenv("COLOUR", "red")
    red = capture.environment_now()
    monkeypatch.setenv("COLOUR", "blue")
    blue = capture.environment_now()
    monkeypatch.delenv("COLOUR")
    assert "COLOUR=red" in red.variables
    assert "COLOUR=blue" in blue.variables
    assert (red.variables, red.digest) != (blue.variables, blue.digest)
    assert capture.environment_now().variables == before.variables == capture.environment()
    assert capture.environment_now().digest == capture.digest(before.variables)


def test_an_environment_that_is_another_mapping_is_read_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    capture.environment_now()
    monkeypatch.setattr(os, "environ", {"COLOUR": "green"})
    assert capture.environment_now().variables == ["COLOUR=green"]


def test_umask_and_limits_are_those_of_the_moment() -> None:
    before = os.umask(0o027)
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
        taken = capture.spec({"argv": ["true"]})
        os.umask(0o077)
        later = capture.spec({"argv": ["true"]})
    finally:
        os.umask(before)
        resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))
    assert (taken["umask"], later["umask"]) == (0o027, 0o077)
    assert taken["limits"]["RLIMIT_CORE"] == 0
    assert taken["seed"] != later["seed"]
