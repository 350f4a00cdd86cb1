"""Which jobs an event is about."""

from typing import Any

import pytest

from gpuq.core.events import jobs_of


@pytest.mark.parametrize(
    ("detail", "jobs"),
    [
        ({}, range(7, 8)),
        ({"last": 9}, range(7, 10)),
        ({"count": 3}, range(7, 10)),
        ({"count": 1, "exit_code": 0}, range(7, 8)),
    ],
)
def test_an_event_names_the_first_of_its_jobs(detail: dict[str, Any], jobs: range) -> None:
    assert jobs_of(7, detail) == jobs
