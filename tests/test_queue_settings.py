"""Named queues in the settings: read, shown, told when they change, and refused with the place."""

from pathlib import Path
from typing import Any

import pytest

from gpuq import config
from gpuq.config import Config
from gpuq.config.queues import QUEUE_SETTINGS, queue_rows
from gpuq.core.policy import Queue, Rate
from gpuq.errors import UsageError

WHOLE = """
[queues.night]
priority = -10
gpus = [0, "2-3"]
max_running = 4
max_gpus = 6
time_limit = "2h"
max_time_limit = "8h"
users = ["alice", "@lab"]
start_rate = "30/m"
"""
NIGHT = Queue(
    name="night",
    priority=-10,
    gpus=("0", "2-3"),
    max_running=4,
    max_gpus=6,
    time_limit_s=7200.0,
    max_time_limit_s=28_800.0,
    users=("alice", "@lab"),
    start_rate=Rate(count=30, per_s=60.0),
)


def load(tmp_path: Path, text: str) -> Config:
    file = tmp_path / "gpuq.toml"
    file.write_text(text)
    return config.load({"config": str(file)}, {"HOME": str(tmp_path)})


def rows(found: Config) -> dict[str, str]:
    return {name: value for name, value, _ in found.settings() if name.startswith("queues.")}


def test_a_queue_is_what_its_table_says(tmp_path: Path) -> None:
    found = load(tmp_path, WHOLE + "[queues.day]\n")
    assert found.policy().queues == (NIGHT, Queue(name="day"))
    assert load(tmp_path, "").policy().queues == ()


def test_all_that_is_said_of_a_queue_is_shown_with_its_origin(tmp_path: Path) -> None:
    found = load(tmp_path, WHOLE + "[queues.day]\n")
    assert rows(found) == {
        "queues.night.priority": "-10",
        "queues.night.gpus": "0, 2-3",
        "queues.night.max_running": "4",
        "queues.night.max_gpus": "6",
        "queues.night.time_limit": "2h",
        "queues.night.max_time_limit": "8h",
        "queues.night.users": "alice, @lab",
        "queues.night.start_rate": "30/m",
        "queues.day": "as any other",
    }
    origins = {origin for name, _, origin in found.settings() if name.startswith("queues.")}
    assert origins == {str(tmp_path / "gpuq.toml")}
    assert len(queue_rows([NIGHT])) == len(QUEUE_SETTINGS)


def test_a_limit_of_nothing_is_no_limit_left_out(tmp_path: Path) -> None:
    (queue,) = load(tmp_path, "[queues.night]\nmax_running = 0\n").policy().queues
    assert queue.max_running == 0


def test_each_thing_that_changes_is_told(tmp_path: Path) -> None:
    found = load(tmp_path, "[queues.night]\nmax_running = 4\n[queues.day]\n")
    before = found.policy()
    text = "[queues.night]\nmax_running = 2\npriority = 1\n"
    (tmp_path / "gpuq.toml").write_text(text)
    told = [(one.name, one.before, one.after) for one in found.take_over(found.read_again())]
    assert told == [
        ("queues.night.max_running", "4", "2"),
        ("queues.day", "as any other", "–"),
        ("queues.night.priority", "–", "1"),
    ]
    assert found.policy() != before
    assert found.policy().queues == (Queue(name="night", max_running=2, priority=1),)
    assert found.take_over(found.read_again()) == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("queues = 3", "queues: each has a table of its own, as [queues.night]"),
        ("[queues]\nnight = 3", "queues.night: it is a table of its own, as [queues.night]"),
        ('[queues."a b"]', "queues: 'a b' is no name of a queue: up to 40 letters, digits"),
        ("[queues.night]\nprio = 1", "queues.night: there is no 'prio'; did you mean priority?"),
        ("[queues.night]\ncolour = 1", "queues.night: there is no 'colour'; known are priority, "),
        ("[queues.night]\npriority = 1.5", "queues.night.priority: 1.5 is not a whole number"),
        ("[queues.night]\nmax_running = -1", "queues.night.max_running: -1 is not a whole number"),
        ("[queues.night]\nmax_gpus = true", "queues.night.max_gpus: True is not a whole number"),
        ("[queues.night]\ngpus = 3", 'queues.night.gpus: 3 is no list like [0, "GPU-8f2c"]'),
        ("[queues.night]\nusers = [1.5]", "queues.night.users: 1.5 is neither a number nor"),
        ("[queues.night]\ntime_limit = 'soon'", "queues.night.time_limit: 'soon' is no length"),
        ("[queues.night]\nstart_rate = 'fast'", "queues.night.start_rate: 'fast' is no rate"),
        (
            "[queues.night]\ntime_limit = '2h'\nmax_time_limit = '1m'",
            "queues.night: a time_limit of 2h is more than its max_time_limit of 60s",
        ),
        ("[queues.night]\nmax_time_limit = '0s'", "queues.night: in no time at all nothing can"),
    ],
)
def test_what_is_wrong_in_a_table_is_named_with_its_place(
    tmp_path: Path, text: str, why: str
) -> None:
    with pytest.raises(UsageError) as refused:
        load(tmp_path, text + "\n")
    assert str(refused.value).startswith(f"{tmp_path}/gpuq.toml: {why}")


def test_there_are_only_so_many(tmp_path: Path) -> None:
    text = "".join(f"[queues.q{number}]\n" for number in range(101))
    with pytest.raises(UsageError, match="101 queues: there can be 100"):
        load(tmp_path, text)


def test_the_example_of_the_page_is_the_queue_that_it_describes(tmp_path: Path) -> None:
    page = (Path(__file__).parents[1] / "docs" / "settings.md").read_text()
    _, _, rest = page.partition("## Named queues\n")
    example: Any = rest.partition("```toml\n")[2].partition("```")[0]
    (queue,) = load(tmp_path, example).policy().queues
    assert queue == NIGHT
