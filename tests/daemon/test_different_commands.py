"""Jobs that differ in their commands alone are told and read as one, and stored as if told singly."""

from collections.abc import Callable, Coroutine
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from gpuq.core.asked.wire_fields import LONGEST_STRING
from gpuq.daemon.store.learned import command_hash
from gpuq.errors import UsageError
from tests.daemon.asking import ANN, Asked, asked

Answer = dict[str, Any]
HASH = sha256(b"A=1\0").hexdigest()
SEED = 2**32 - 3  # the fourth begins anew at 0
COMMANDS = [
    ["/bin/true", "0"],
    ["/bin/true", "1"],
    ["/bin/true", ""],
    ["python3", "-u", "train.py", "--lr", "1"],
    ["python3", "-u", "train.py", "--lr", "2"],
    ["python3", "/opt/other.py"],
    ["python3", "-"],
    ["/opt/größe", 'a"b', "{i}", "\u2028", "%"],
    ["/opt/\udcff\udcc3\udcb6", "\udce9"],  # bytes that are no text, and two that are
    ["docker", "run", "--gpus", "all", "image"],
    ["/bin/echo", *["x" * 1000] * 200],  # longer than any one word may be
    ["/bin/true", "0"],
]
TABLES = ("specs", "jobs", "classes", "groups", "group_spans", "queued_jobs", "sqlite_sequence")


def job(**more: Any) -> Answer:
    return {"cwd": "/tmp", "gpus": 0, "held": True, "tags": ["t"]} | more


async def submit(at: Asked, do: str, *jobs: Answer, **more: Any) -> Answer:
    return await at.ask(do, jobs=list(jobs), env_hash=HASH, environment=["A=1"], **more)


async def together(at: Asked, **more: Any) -> None:
    first, *others = COMMANDS
    answer = await submit(at, "submit_alike", job(argv=first, argvs=others, seed=SEED, **more))
    assert (answer["first"], answer["count"]) == (1, len(COMMANDS))
    assert answer["entries"] == [(job, job) for job in range(1, len(COMMANDS) + 1)]


async def each_told(at: Asked, **more: Any) -> None:
    await submit(at, "submit", *each(**more))


async def one_by_one(at: Asked, **more: Any) -> None:
    for number, alone in enumerate(each(**more)):
        await submit(at, "submit", alone, group="g1" if number else None)


def each(**more: Any) -> list[Answer]:
    return [
        job(argv=argv, seed=(SEED + number) % 2**32, **more) for number, argv in enumerate(COMMANDS)
    ]


def rows(at: Asked, table: str) -> list[Answer]:
    """As they are stored: of which type each value is, too."""
    database = at.store.database
    names = [name for name in database.columns(table) if name not in ("submitted_at", "seq")]
    names += ["seq"] if table == "sqlite_sequence" else []
    told = ", ".join(f"quote({name}) as {name}" for name in names)
    which = "where name = 'jobs'" if table == "sqlite_sequence" else ""
    found = database.rows(f"select {told} from {table} {which}")
    return sorted(found, key=lambda row: [str(value) for value in row.values()])


@pytest.mark.parametrize("more", [{}, {"time_limit_s": 60.0}, {"name": "mine"}, {"gpus": 1}])
@pytest.mark.parametrize("is_known", [False, True])
def test_they_are_stored_as_if_each_were_told(tmp_path: Path, more: Answer, is_known: bool) -> None:
    def stored(way: Callable[..., Coroutine[Any, Any, None]]) -> dict[str, list[Answer]]:
        found: dict[str, list[Answer]] = {}

        async def deed(at: Asked) -> None:
            if is_known:
                remember(at, more.get("name"))
            await way(at, **more)
            found.update({table: rows(at, table) for table in TABLES})

        here = tmp_path / way.__name__
        here.mkdir()
        asked(here, deed, gpus="sim:1x24G")
        return found

    one, *others = map(stored, (together, each_told, one_by_one))
    assert len(one["specs"]) == len(one["jobs"]) == len(COMMANDS)
    assert len(one["classes"]) == (3 if is_known and "time_limit_s" not in more else 1)
    for other in others:
        for table in TABLES:
            assert other[table] == one[table], table


def remember(at: Asked, name: str | None) -> None:
    """How long some of them have run before."""
    for program, length_s in (([b"/bin/true"], 100.0), ([b"python3", b"train.py"], 1000.0)):
        called = name or program[-1].rsplit(b"/")[-1].decode()
        known = command_hash(program, b"/tmp", called)
        with at.store.database.transaction():
            at.store.database.write(
                "insert into durations (uid, command, longest_s, runs, last_job, at) "
                "values (?, ?, ?, 1, 1, 0)",
                (ANN.uid, known, length_s),
            )


@pytest.mark.parametrize(
    ("argvs", "why"),
    [
        ("true", "argvs: 'true' is not a list"),
        (["true"], "argv: 'true' is not a list"),
        ([[]], "no command to run"),
        ([["true"], [""]], "no command to run"),
        ([["true", 1]], "argv: 1 is not text"),
        ([["true", "a\0b"]], "a NUL byte cannot be passed"),
        ([["true", "\ud800"]], "half a character"),
        ([["true", "x" * (LONGEST_STRING + 1)]], "Linux passes at most"),
        ([["docker", "run", "-d", "image"]], "Leave out -d"),
        ([["true"]] * 10_000, "a list of 1 to 10000 jobs"),
        ([7] * 10_000, "a list of 1 to 10000 jobs"),  # and is not read first
    ],
)
def test_a_command_that_cannot_be_one_is_refused_with_all(
    tmp_path: Path, argvs: Any, why: str
) -> None:
    async def deed(at: Asked) -> None:
        with pytest.raises(UsageError, match=why):
            await submit(at, "submit_alike", job(argv=["true"], argvs=argvs))
        assert at.rows() == {}

    asked(tmp_path, deed)


@pytest.mark.parametrize(
    "more",
    [
        {"times": 2},
        {"key": "k"},
        {"after": [{"jobs": "1"}]},
        {"array": {"indices": [[0, 2, 1]]}},
        {"gpus": 1, "gpu_mem": "auto"},
    ],
)
def test_what_is_a_jobs_own_is_told_one_by_one(tmp_path: Path, more: Answer) -> None:
    async def deed(at: Asked) -> None:
        with pytest.raises(UsageError, match=r"told one by one|leave one out"):
            await submit(at, "submit_alike", job(argv=["true"], argvs=[["false"]], **more))
        assert at.rows() == {}

    asked(tmp_path, deed, gpus="sim:1x24G")


def test_a_submit_that_does_not_say_so_has_no_other_commands(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        assert (await submit(at, "submit", job(argv=["true"], argvs=[["false"]])))["count"] == 1

    asked(tmp_path, deed)


def test_each_runs_its_own_command_with_its_own_seed(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        words = [["sh", "-c", f'echo {word} "$GPUQ_SEED" > {word}'] for word in ("a", "b", "c")]
        alike = {"cwd": str(tmp_path), "gpus": 0, "seed": SEED}
        await submit(at, "submit_alike", {"argv": words[0], "argvs": words[1:], **alike})
        for number, word in enumerate(("a", "b", "c")):
            assert (await at.daemon.ended(1 + number))["outcome"] == "succeeded"
            assert (tmp_path / word).read_text() == f"{word} {SEED + number}\n"

    asked(tmp_path, deed)


def test_others_may_stand_before_and_behind_them(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        jobs = [
            job(argv=["a"], times=2),
            job(argv=["b"], argvs=[["c"], ["d"]]),
            job(argv=["e"]),
        ]
        answer = await submit(at, "submit_alike", *jobs)
        assert answer["entries"] == [(number, number) for number in range(1, 7)]
        shown = [(await at.ask("show", ref=str(number)))["job"] for number in range(1, 7)]
        assert [one["name"] for one in shown] == ["a", "a", "b", "c", "d", "e"]
        assert list(at.rows()) == [(1, 2), (3, 3), (4, 4), (5, 5), (6, 6)]

    asked(tmp_path, deed)
