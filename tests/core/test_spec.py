"""What was asked is taken exactly as it was asked, or refused with the name of the field."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuq.core.asked.commands import MOST_ARGV_BYTES
from gpuq.core.asked.spec import Spec, parse_signal, read_spec
from gpuq.core.asked.wire_fields import LONGEST_STRING, join, split, to_bytes, to_text
from gpuq.core.model import Request
from gpuq.errors import UsageError
from tests.builders import STEADY, gpu

GIB = 2**30


def wire(**fields: Any) -> dict[str, Any]:
    return {"argv": ["true"], "cwd": "/", "env_hash": "ab" * 32} | fields


def read(**fields: Any) -> Spec:
    return read_spec(wire(**fields), default_gpus=1, grace_s=10.0)


def test_the_least_that_can_be_asked_gets_the_usual_rest() -> None:
    spec = read()
    assert (spec.argv, spec.cwd, spec.umask) == ((b"true",), b"/", 0o022)
    assert spec.request == Request(gpus=1, exclusive=True, cpus=1)
    assert (spec.name, spec.grace_s, spec.priority, spec.visible) == ("true", 10.0, 0, "auto")
    assert (spec.limits, spec.changes, spec.output, spec.stderr) == ({}, {}, None, None)
    assert (spec.time_limit_s, spec.heartbeat_s, spec.key) == (None, None, None)
    assert (spec.retries, spec.backoff, spec.retry_on, spec.stop_to) == (0, None, None, "all")


def test_a_name_of_a_gpu_is_not_empty_and_a_list_of_them_may_be() -> None:
    assert read(gpu_ids=[], exclude_gpus=[]) == read()
    for field in ("gpu_ids", "exclude_gpus"):
        for word in ("", " "):
            with pytest.raises(UsageError, match="there is no GPU"):
                read_spec(wire(**{field: [word]}), default_gpus=1, grace_s=1.0, machine=[gpu(0)])


def test_fields_of_a_newer_client_are_passed_over() -> None:
    assert read(colour="red") == read()


def test_null_is_the_same_as_nothing() -> None:
    fields = (
        "umask gpus gpu_mem_bytes gpu_model cpus name priority grace_s output limits changes "
        "time_limit_s heartbeat_s retries backoff retry_on key stop_to"
    )
    assert read(**dict.fromkeys(fields.split())) == read()
    assert read(limits={"RLIMIT_CORE": None}) == read()


@STEADY
@given(st.lists(st.binary(min_size=1).filter(lambda part: b"\0" not in part), min_size=1))
def test_arguments_arrive_byte_for_byte(argv: list[bytes]) -> None:
    spec = read(argv=[to_text(part) for part in argv])
    assert spec.argv == tuple(argv)
    assert split(join(spec.argv)) == argv


def test_an_empty_argument_is_an_argument() -> None:
    assert split(join(read(argv=["printf", "", "x"]).argv)) == [b"printf", b"", b"x"]


# ── GPUs ──


def test_a_gpu_is_exclusive_unless_its_memory_is_asked_for() -> None:
    assert read().request.exclusive
    assert not read(gpu_mem_bytes=5 * GIB).request.exclusive
    assert read(gpu_mem_bytes=5 * GIB, exclusive=True).request.exclusive
    assert read(exclusive=False).request.exclusive


def test_the_default_number_of_gpus_is_the_machines() -> None:
    assert read_spec(wire(), default_gpus=0, grace_s=1.0).request == Request(gpus=0)
    assert read_spec(wire(gpus=2), default_gpus=0, grace_s=1.0).request.gpus == 2


@pytest.mark.parametrize("wish", [{"gpu_mem_bytes": GIB}, {"gpu_model": "A100"}])
def test_no_gpu_has_neither_memory_nor_model(wish: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="--gpus 0 takes no"):
        read(gpus=0, **wish)


def test_only_jobs_without_gpus_take_cpu_slots() -> None:
    assert read(gpus=0, cpus=4).request.cpu_slots == 4
    assert read(gpus=1, cpus=4).request.cpu_slots == 0


# ── how it ends, and begins again ──


def test_what_looks_like_what_was_read_before_is_read_as_it_is() -> None:
    usual = {"cpus": 1, "held": True, "grace_s": 1.0, "name": "n", "tags": ["1"]}
    before = read(**usual)
    assert read(**usual) == before
    for other in ({"cpus": True}, {"held": 1}, {"tags": [1]}, {"name": "n\0"}):
        with pytest.raises(UsageError):
            read(**(usual | other))
    assert read(**(usual | {"cpus": 2})).request.cpus == 2
    assert read_spec(wire(), default_gpus=2, grace_s=10.0).request.gpus == 2
    assert read_spec(wire(), default_gpus=1, grace_s=3.0).grace_s == 3.0
    assert (read().request.gpus, read().grace_s) == (1, 10.0)


def test_of_what_was_read_before_each_has_its_own_command_and_seed() -> None:
    for seed, argv in enumerate((["/bin/a", "1"], ["b"], ["python", "c.py"])):
        spec = read(argv=argv, seed=seed)
        assert (spec.argv, spec.seed) == (tuple(word.encode() for word in argv), seed)
        assert spec.name == ("a", "b", "c.py")[seed]
        assert read(argv=argv, seed=seed, name="mine").name == "mine"
    for bad in (
        {"argv": []},
        {"argv": ["a\0"]},
        {"seed": -1},
        {"argv": ["docker", "run", "-d", "x"]},
    ):
        with pytest.raises(UsageError):
            read(**bad)


def test_a_gpu_is_looked_up_among_those_of_the_machine_each_time() -> None:
    for uuid in ("GPU-before", "GPU-after"):
        machine = [replace(gpu(0), uuid=uuid)]
        spec = read_spec(wire(gpu_ids=["0"]), default_gpus=1, grace_s=1.0, machine=machine)
        assert spec.request.gpu_ids == (uuid,)


def test_a_field_of_a_newer_client_may_be_as_deep_as_it_likes() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert read(colour=deep) == read()


def test_limits_that_look_like_known_ones_are_read_as_they_are() -> None:
    """To Python 1 is True and 1.0."""
    assert read(limits={"RLIMIT_CORE": 1}).limits == {"RLIMIT_CORE": 1}
    for other in (True, 1.0):
        with pytest.raises(UsageError, match="RLIMIT_CORE"):
            read(limits={"RLIMIT_CORE": other})
    assert read(limits={"RLIMIT_CORE": 1}).limits == {"RLIMIT_CORE": 1}


def test_limits_are_lengths_of_time() -> None:
    spec = read(time_limit_s=5400, heartbeat_s=0.5)
    assert (spec.time_limit_s, spec.heartbeat_s) == (5400.0, 0.5)
    assert isinstance(spec.time_limit_s, float)


def test_how_to_retry_is_kept_as_it_was_written() -> None:
    spec = read(retries=3, backoff="exp:2s:5m", retry_on="oom,exit:75-77")
    assert (spec.retries, spec.backoff, spec.retry_on) == (3, "exp:2s:5m", "oom,exit:75-77")


@pytest.mark.parametrize("field", ["backoff", "retry_on"])
def test_how_to_retry_is_of_no_use_without_retries(field: str) -> None:
    option = f"--{field.replace('_', '-')}"
    for retries in ({}, {"retries": 0}):
        with pytest.raises(UsageError, match=f"^{option} .*there are no retries. Add --retries N"):
            read(**retries, **{field: "10s"})


@pytest.mark.parametrize(
    ("field", "text", "why"),
    [
        ("backoff", "soon", "'soon' is no backoff: write it like 10s"),
        ("backoff", "2y", "'2y' is no backoff"),
        ("retry_on", "rain", "'rain' is no end to retry on"),
        ("retry_on", "exit:0", "'exit:0' is no exit code of a failure"),
    ],
)
def test_a_rule_that_cannot_be_read_is_refused_now_and_not_at_its_first_use(
    field: str, text: str, why: str
) -> None:
    with pytest.raises(UsageError, match=f"^--{field.replace('_', '-')}: {why}"):
        read(retries=1, **{field: text})


def test_a_limit_that_nothing_can_keep_is_refused() -> None:
    assert read(time_limit_s=0.1).time_limit_s == 0.1
    with pytest.raises(UsageError, match=r"^--time: 0\.05 s is shorter than 0\.1 s$"):
        read(time_limit_s=0.05)


def test_who_gets_the_term_can_be_chosen() -> None:
    assert read(stop_to="main").stop_to == "main"


# ── what is refused ──


@pytest.mark.parametrize(
    "fields",
    [
        {"argv": []},
        {"argv": [""]},
        {"argv": "true"},
        {"argv": [1]},
        {"argv": ["a\0b"]},
        {"argv": ["\ud800"]},
        {"argv": ["x" * (LONGEST_STRING + 1)]},
        {"argv": ["x" * LONGEST_STRING] * (MOST_ARGV_BYTES // LONGEST_STRING + 1)},
        {"cwd": "here"},
        {"cwd": None},
        {"umask": 0o1000},
        {"umask": True},
        {"gpus": -1},
        {"gpus": 65},
        {"gpus": 1.0},
        {"gpu_mem_bytes": 0},
        {"gpu_model": "A\n100"},
        {"cpus": 0},
        {"cpus": "4"},
        {"priority": 10**9},
        {"grace_s": -1},
        {"grace_s": float("nan")},
        {"grace_s": float("inf")},
        {"grace_s": True},
        {"seed": 2**32},
        {"visible": "some"},
        {"visible": ["uuid"]},
        {"output": "log"},
        {"stderr": "a\0b"},
        {"tags": "a"},
        {"tags": ["a\tb"]},
        {"tags": ["x" * 201]},
        {"name": "\x1b[31m"},
        {"name": 5},
        {"limits": [1]},
        {"limits": {"RLIMIT_NOFILE": "many"}},
        {"limits": {"RLIMIT_NOFILE": -2}},
        {"changes": {"A": 1}},
        {"changes": {"A=B": "1"}},
        {"changes": {"": "1"}},
        {"changes": {"A": "\0"}},
        {"time_limit_s": 0},
        {"time_limit_s": -1},
        {"time_limit_s": True},
        {"time_limit_s": "1h"},
        {"time_limit_s": float("nan")},
        {"time_limit_s": float("inf")},
        {"heartbeat_s": 0.01},
        {"heartbeat_s": "often"},
        {"retries": -1},
        {"retries": 1001},
        {"retries": 1.0},
        {"retries": True},
        {"retries": 1, "backoff": 10},
        {"retries": 1, "backoff": ""},
        {"retries": 1, "retry_on": ["failed"]},
        {"key": 5},
        {"key": "a\nb"},
        {"key": "x" * 201},
        {"stop_to": "children"},
        {"env_hash": None},
        {"env_hash": "ab"},
        {"env_hash": "zz" * 32},
        {"env_hash": 7},
    ],
    ids=lambda fields: f"{fields}"[:60],
)
def test_what_cannot_be_run_is_refused_before_it_is_stored(fields: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        read(**fields)
    assert "\n" not in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
FIELDS = [field for field in Spec.__slots__ if field not in ("environment", "request")] + [
    *("env_hash", "gpus", "gpu_mem_bytes", "gpu_model", "exclusive", "cpus"),
]


@STEADY
@given(st.dictionaries(st.sampled_from(FIELDS), JSON))
def test_whatever_comes_over_the_wire_is_a_spec_or_a_usage_error(fields: dict[str, Any]) -> None:
    try:
        spec = read(**fields)
    except UsageError:
        return
    assert spec.argv
    assert spec.name.isprintable()


# ── names ──


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        (["/usr/bin/nvidia-smi"], "nvidia-smi"),
        (["python", "-u", "src/train.py", "--lr", "1"], "train.py"),
        (["/opt/bin/python3.11", "-m", "pkg.train"], "pkg.train"),
        (["python", "-i"], "python"),
        (["/"], "job"),
        (["a\x1b[31mb"], "a?[31mb"),
        (["x" * 99], "x" * 40),
        ([to_text(b"\xff")], "?"),
    ],
)
def test_a_job_is_named_after_what_it_runs(argv: list[str], name: str) -> None:
    assert read(argv=argv).name == name


def test_a_given_name_is_kept() -> None:
    assert read(name="Lauf 3 – spät").name == "Lauf 3 – spät"


# ── signals ──


@pytest.mark.parametrize("word", ["INT", "sigint", "SigInt", " int ", "2", 2])
def test_a_signal_is_named_in_any_usual_way(word: str | int) -> None:
    assert parse_signal(word) == 2


@pytest.mark.parametrize("word", ["", "0", "-9", "99", "SIGSIGINT", "KILLED", "²", "DFL"])
def test_what_is_no_signal_is_refused(word: str) -> None:
    with pytest.raises(UsageError, match="is no signal"):
        parse_signal(word)


# ── bytes and text ──


@STEADY
@given(st.binary(max_size=200).filter(lambda data: b"\0" not in data))
def test_bytes_survive_the_wire(data: bytes) -> None:
    assert to_bytes("argv", to_text(data)) == data


def test_an_error_names_the_field() -> None:
    with pytest.raises(UsageError, match=r"^cwd: "):
        to_bytes("cwd", 3)
