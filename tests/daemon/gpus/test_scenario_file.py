"""The file of a scenario: what may stand in it, what is said of mistakes, and that the page on it is
true."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuq import config
from gpuq.daemon.gpus import check_gpus, parse_gpus
from gpuq.daemon.gpus.simulated.scenario import Scenario
from gpuq.daemon.gpus.simulated.scenario_file import (
    SHIPPED,
    read_scenario,
    scenario_of,
    shipped_names,
)
from gpuq.daemon.gpus.simulated.scenario_keys import KEYS, TABLES
from gpuq.daemon.gpus.simulated.scripted import ScriptedBackend
from gpuq.errors import UsageError
from tests.builders import STEADY

PAGE = Path(__file__).parents[3] / "docs" / "scenarios.md"
CARD = '[[gpu]]\nmemory = "24G"\n'
PROCESS = CARD + "[[process]]\ngpus = 0\n"


def refusal(text: str) -> str:
    with pytest.raises(UsageError) as refused:
        scenario_of(tomllib.loads(text), "box.toml")
    words = str(refused.value)
    assert words.isprintable()
    assert len(words) < 400
    return words


# ── mistakes ──


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", 'box.toml: there is no GPU: write [[gpu]], and below it memory = "24G"'),
        ("[[proces]]", "box.toml: there is no 'proces'; did you mean process?"),
        ("colour = 1", "box.toml: there is no 'colour'; known are about, repeat, gpu, link, jobs,"),
        ("gpu = 3", "box.toml: gpu: it is a table: write [[gpu]] above its keys"),
        ("about = 3", "box.toml: about: 3 is no text: write it in quotes, in one line"),
        ("repeat = 30", "box.toml: repeat: 30 is no text: write it in quotes"),
        ('repeat = "0s"', "box.toml: repeat: '0s' is shorter than a second"),
        ("[[gpu]]", "box.toml: [[gpu]] 1: memory is missing: a size, as in"),
        ('[[gpu]]\nmemory = "24"', "[[gpu]] 1: memory: '24' is no size: write it like 24G or 500M"),
        ('[[gpu]]\nmemory = "0G"', "[[gpu]] 1: memory: '0G' is nothing"),
        ('[[gpu]]\nmemory = "9999T"', "[[gpu]] 1: memory: '9999T' is more than 1024T"),
        ("[[gpu]]\nmemory = 24", "[[gpu]] 1: memory: 24 is no text"),
        (CARD + "count = 0", "[[gpu]] 1: count: 0 is not a whole number from 1 to 64"),
        (CARD + "count = true", "[[gpu]] 1: count: True is not a whole number from 1 to 64"),
        (CARD + "count = 1.5", "[[gpu]] 1: count: 1.5 is not a whole number from 1 to 64"),
        (CARD + "count = 40\n" + CARD + "count = 40", "[[gpu]] 2: count: at most 64 GPUs can be"),
        (CARD + 'reserved = "24G"', "[[gpu]] 1: memory: reserved and idle_memory leave nothing"),
        ('[[gpu]]\nmemory = "none"\nreserved = "1G"', "[[gpu]] 1: reserved: a GPU without memory"),
        (CARD + "power_limit = nan", "[[gpu]] 1: power_limit: nan is not from 1 to 10000"),
        (CARD + "power_limit = -5", "[[gpu]] 1: power_limit: -5 is not from 1 to 10000"),
        (
            CARD + 'mode = "exclusive"',
            "mode: 'exclusive' is not known; did you mean exclusive_process?",
        ),
        (
            CARD + 'mode = "x"',
            "'x' is not known; write one of default, exclusive_process, prohibited",
        ),
        (CARD + "mode = [1]", "[[gpu]] 1: mode: [1] is not known"),
        (CARD + "mig = 3", "[[gpu]] 1: mig: write a list like [{ name ="),
        (
            CARD + "mig = [{ nam = 1 }]",
            "[[gpu]] 1: mig 1: there is no key 'nam'; did you mean name?",
        ),
        (
            CARD + 'mig = [{ name = "a", memory = "25G" }]',
            "mig: the instances have more memory than",
        ),
        (CARD + "model = '''a\nb'''", "[[gpu]] 1: model: 'a\\nb' is no text"),
        (CARD + f'model = "{"x" * 600}"', "xxx... is longer than 500 letters"),
        (CARD + '[[link]]\ngpus = 0\nby = "nvlink"', "[[link]] 1: gpus: a link joins two GPUs"),
        (CARD + '[[link]]\ngpus = 0\nby = "unknown"', "[[link]] 1: by: 'unknown' is not known"),
        (PROCESS + "memroy = 1", "[[process]] 1: there is no key 'memroy'; did you mean memory?"),
        (
            PROCESS + 'memory = "25G"',
            "[[process]] 1: memory: 25G is too much: GPU 0 has 24G for all",
        ),
        (PROCESS + "utilization = 101", "[[process]] 1: utilization: 101 is not from 0 to 100"),
        (PROCESS + "utilization = [1, 2]", "utilization: write a number, or points like [["),
        (PROCESS + "utilization = []", "utilization: write a number, or points like [["),
        (PROCESS + 'utilization = [["9s", 1], ["8s", 1]]', "the points run backwards in time"),
        (PROCESS + 'utilization = [["9s", 900]]', "utilization: 900 is not from 0 to 100"),
        (PROCESS + "pid = 0", "[[process]] 1: pid: 0 is not a whole number from 1 to 2147483647"),
        (PROCESS + 'from = "-5s"', "[[process]] 1: from: '-5s' is no length of time"),
        (PROCESS + 'from = "9999d"', "[[process]] 1: from: '9999d' is longer than a year"),
        (PROCESS + 'from = "1m"\nuntil = "60s"', "[[process]] 1: until: it has to come later than"),
        (PROCESS + "from = { fil = 1 }", "[[process]] 1: from: {'fil': 1} is no moment: write"),
        (PROCESS + 'from = { file = "../x" }', "from: '../x' is not the name of a file beside"),
        (PROCESS + 'from = { file = ".." }', "from: '..' is not the name of a file beside"),
        (
            'repeat = "1m"\n' + PROCESS + 'from = "60s"',
            "from: it never comes: the story begins again",
        ),
        ('repeat = "1m"\n' + PROCESS + 'until = "61s"', "until: it never comes: the story begins"),
        (
            'repeat = "1m"\n' + CARD + '[[xid]]\ngpus = 0\nat = "60s"\ncodes = 1',
            "at: it never comes",
        ),
        (CARD + "[[process]]", "[[process]] 1: gpus is missing: the GPUs that it is about, as in"),
        (CARD + "[[process]]\ngpus = 1", "[[process]] 1: gpus: the last GPU of this scenario is 0"),
        (CARD + '[[process]]\ngpus = "0-"', "[[process]] 1: gpus: '0-' is neither a number nor a"),
        (CARD + '[[process]]\ngpus = "3-1"', "[[process]] 1: gpus: '3-1' runs backwards"),
        (CARD + '[[process]]\ngpus = "0-99999999999"', "gpus: '0-99999999999': GPUs go up to 63"),
        (CARD + "[[process]]\ngpus = -1", "[[process]] 1: gpus: -1 is no text"),
        (CARD + "[[process]]\ngpus = true", "[[process]] 1: gpus: True is no text"),
        (CARD + "[[jobs]]\nuses = -1", "[[jobs]] 1: uses: -1 is not from 0 to 100"),
        (CARD + '[[jobs]]\nrelease = "nver"', "[[jobs]] 1: release: 'nver' is no length of time"),
        (CARD + "[[fault]]\ngpus = 0", "[[fault]] 1: kind is missing: what it is, as in"),
        (
            CARD + '[[fault]]\ngpus = 0\nkind = "los"',
            "kind: 'los' is not known; did you mean lost?",
        ),
        (CARD + '[[fault]]\ngpus = 0\nkind = "defect"', "says: a defect is told in words: write"),
        (CARD + '[[fault]]\ngpus = 0\nkind = "missing"\nsays = "x"', "says: a GPU that is missing"),
        (
            CARD + '[[fault]]\ngpus = 0\nkind = "warning"\nsays = "x"\nlasting = true',
            "lasting: it is for other kinds than warning",
        ),
        (
            CARD + '[[fault]]\ngpus = 0\nkind = "lost"\nlasting = 1',
            "lasting: 1 is neither true nor",
        ),
        (CARD + '[[xid]]\ngpus = 0\nat = "1m"\ncodes = []', "codes: write one number, or a list"),
        (CARD + '[[xid]]\ngpus = 0\nat = "1m"\ncodes = "79"', "codes: '79' is not a whole number"),
        (
            CARD + "[[driver]]",
            "[[driver]] 1: unavailable: write either why there is no GPU, or hangs",
        ),
        (CARD + '[[driver]]\nhangs = true\nunavailable = "x"', "unavailable: write either why"),
        (CARD + "[[test]]", "[[test]] 1: fails: write why it fails, or how fast it is"),
    ],
)
def test_a_mistake_is_told_with_its_place_and_what_was_wanted(text: str, says: str) -> None:
    assert says in refusal(text)
    assert refusal(text).startswith("box.toml: ")


def same_pid(first: str, second: str) -> str:
    head = CARD.replace("[[gpu]]", "[[gpu]]\ncount = 2")
    return f"{head}[[process]]\npid = 7\n{first}\n[[process]]\npid = 7\n{second}"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("gpus = 0", "gpus = 0"),
        ('gpus = 0\nuntil = "1m"', 'gpus = 0\nfrom = "59s"'),
        ('gpus = 0\nuser = "ann"', 'gpus = 1\nuser = "bob"'),
        ('gpus = 0\nfrom = { file = "x" }', 'gpus = 0\nfrom = "1h"'),
        ('gpus = 0\nuntil = { file = "x" }', 'gpus = 0\nfrom = "1h"'),
    ],
)
def test_two_processes_at_a_time_cannot_have_one_pid(first: str, second: str) -> None:
    says = "[[process]] 2: pid: 7 is already that of another process at that time"
    assert says in refusal(same_pid(first, second))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ('gpus = 0\nuntil = "1m"', 'gpus = 0\nfrom = "1m"'),
        ('gpus = 0\nmemory = "1G"', 'gpus = 1\nmemory = "2G"'),
        ('gpus = 0\nuntil = "1m"', 'gpus = 0\nfrom = "1m"\nuntil = { file = "x" }'),
    ],
)
def test_one_process_may_come_back_and_use_each_gpu_otherwise(first: str, second: str) -> None:
    assert len(scenario_of(tomllib.loads(same_pid(first, second)), "box.toml").uses) == 2


def test_a_single_table_may_stand_in_single_brackets() -> None:
    story = scenario_of(tomllib.loads('[gpu]\nmemory = "24G"\n[jobs]\nuses = 2.0'), "box.toml")
    assert (len(story.gpus), story.jobs[0].uses) == (1, 2.0)


def test_a_file_that_is_no_toml_is_told_with_a_hint(tmp_path: Path) -> None:
    path = tmp_path / "box.toml"
    for text in ("memory = 24G", "[[gpu", "x = " + "[" * 100_000):
        path.write_text(text)
        with pytest.raises(UsageError, match=re.escape(str(path))):
            read_scenario(str(path))
    path.write_bytes(b'about = "\xff"')
    with pytest.raises(UsageError, match="utf-8"):
        read_scenario(str(path))


def test_what_is_no_file_is_told_with_what_there_is(tmp_path: Path) -> None:
    for name in (str(tmp_path / "none.toml"), str(tmp_path), "shared-bos", "a\0b.toml"):
        with pytest.raises(
            UsageError, match="the shipped ones are flaky-card, mig-box, shared-box"
        ):
            read_scenario(name)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=5,
)
kinds = st.sampled_from(list(KEYS["story"]) + TABLES)
keys = st.sampled_from(sorted({key for keys in KEYS.values() for key in keys}))


@STEADY
@given(st.dictionaries(kinds, values | st.lists(st.dictionaries(keys, values, max_size=3))))
def test_nothing_in_a_file_breaks_the_reader(table: dict[str, object]) -> None:
    for candidate in (table, table | {"gpu": [{"memory": "24G"}]}):
        try:
            scenario_of(candidate, "box.toml")
        except UsageError:
            pass


# ── how one is chosen ──


def test_a_file_comes_before_what_is_shipped_and_its_path_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert config.whole_gpus("scenario:shared-box") == "scenario:shared-box"
    assert config.whole_gpus("scenario:box8.toml") == f"scenario:{tmp_path}/box8.toml"
    assert config.whole_gpus("scenario:a/b", "/etc/gpuq") == "scenario:/etc/gpuq/a/b"
    assert config.whole_gpus("sim:4x24G") == "sim:4x24G"
    (tmp_path / "shared-box").write_text(CARD)
    assert config.whole_gpus("scenario:shared-box") == f"scenario:{tmp_path}/shared-box"
    assert len(read_scenario(f"{tmp_path}/shared-box").gpus) == 1
    assert len(read_scenario("shared-box").gpus) == 8


def test_the_setting_says_the_whole_path_wherever_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
        (folder / "mig-box").write_text(CARD)
    monkeypatch.chdir(here)
    (there / "gpuq.toml").write_text('gpus = "scenario:box.toml"\n')
    around = {"HOME": str(tmp_path), "GPUQ_CONFIG": str(there / "gpuq.toml")}
    assert config.load({}, around).gpus == f"scenario:{there}/box.toml"
    by_variable = config.load({}, around | {"GPUQ_GPUS": "scenario:box.toml"})
    assert by_variable.gpus == f"scenario:{here}/box.toml"
    assert config.load({"gpus": "scenario:mig-box"}, around).gpus == f"scenario:{here}/mig-box"
    (there / "gpuq.toml").write_text('gpus = "scenario:flaky-card"\n')
    (here / "flaky-card").write_text(CARD)  # meant is what lies beside the file, and nothing does
    assert config.load({}, around).gpus == "scenario:flaky-card"


def test_a_daemon_does_not_start_with_a_scenario_that_cannot_be_read(tmp_path: Path) -> None:
    assert parse_gpus("scenario:shared-box").scenario == "shared-box"
    for text in ("nvml", "none", "sim:4x24G", "scenario:mig-box"):
        check_gpus(text)
    (tmp_path / "box.toml").write_text(CARD + "colour = 1")
    with pytest.raises(UsageError, match="there is no key 'colour'"):
        check_gpus(f"scenario:{tmp_path}/box.toml")
    with pytest.raises(UsageError, match="write nvml"):
        check_gpus("scenario:")


# ── what is shipped, and the page ──


def moments_of(story: Scenario) -> list[float]:
    windows = [one.window for one in (*story.uses, *story.faults, *story.jobs, *story.trials)]
    found = [moment for window in windows for moment in (window.begin, window.end)]
    found += [xid.at for xid in story.xids]
    return sorted({moment for moment in found if isinstance(moment, float)})


@pytest.mark.parametrize("name", shipped_names())
def test_a_shipped_scenario_does_what_its_head_says_when_it_says_so(name: str) -> None:
    text = (Path(SHIPPED) / f"{name}.toml").read_text()
    head = list(re.findall(r"^#\s+(\d+):(\d\d)   \S", text, flags=re.MULTILINE))
    told = {60.0 * int(minutes) + int(seconds) for minutes, seconds in head}
    story = read_scenario(name)
    assert story.about
    assert {story.repeat_s, 0.0} <= told
    unnamed = {moment for moment in moments_of(story) if moment not in told}
    assert unnamed <= {130.0}  # the end of ten seconds that flaky-card cannot be read for
    assert told - {story.repeat_s} <= {0.0, *moments_of(story)}


@pytest.mark.parametrize("name", shipped_names())
def test_a_shipped_scenario_can_be_played_to_its_end(name: str) -> None:
    story = read_scenario(name)
    clock = [0.0]
    backend = ScriptedBackend(story, started_s=0.0, now=lambda: clock[0])
    for clock[0] in [*moments_of(story), story.repeat_s or 0.0]:
        gpus = backend.sample([])
        assert len(gpus) == len(story.gpus)


def test_the_shared_box_is_full_then_free_then_partly_full() -> None:
    clock = [0.0]
    backend = ScriptedBackend(read_scenario("shared-box"), started_s=0.0, now=lambda: clock[0])
    busy = {}
    for clock[0] in (0.0, 41.0, 180.0, 400.0, 600.0, 721.0):
        gpus = backend.sample([])
        busy[clock[0]] = [gpu.index for gpu in gpus if gpu.processes]
        if clock[0] == 0.0:
            assert all(94 <= (gpu.utilization_percent or 0) <= 97 for gpu in gpus)
            assert all(
                p.user and (p.unit or "").startswith("docker ")
                for g in gpus
                for p in g.foreign_processes
            )
    every = list(range(8))
    assert busy == {
        0.0: every,
        41.0: [0, 1, 2, 3, 4, 5, 7],
        180.0: [],
        400.0: [0, 1, 6, 7],
        600.0: [],
        721.0: every,
    }


def sections() -> Iterator[tuple[str, str]]:
    """The page by its headings: the name of the table that each is about, else the heading."""
    for part in PAGE.read_text().split("\n## ")[1:]:
        heading, _, text = part.partition("\n")
        table = re.match(r"`\[\[(\w+)\]\]`", heading)
        yield (table[1] if table else heading), text


EXAMPLES = re.findall(r"^```toml\n(.*?)^```$", PAGE.read_text(), flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("text", EXAMPLES)
def test_the_examples_of_the_page_can_be_read(text: str) -> None:
    assert scenario_of(tomllib.loads(text), "box.toml").gpus


def test_the_page_names_every_key_where_its_table_is_described() -> None:
    described = dict(sections())
    described["story"] = described["Keys of the file itself"]
    described["mig"] = described["gpu"]
    for kind, known in KEYS.items():
        for key in known:
            assert f"`{key}`" in described[kind], f"{kind}: {key}"


def test_the_page_has_an_example_of_every_key_and_names_no_other() -> None:
    used: dict[str, set[str]] = {kind: set() for kind in KEYS}
    for text in EXAMPLES:
        story = tomllib.loads(text)
        used["story"] |= set(story) - set(TABLES)
        for kind in TABLES:
            for table in story.get(kind, []):
                used[kind] |= set(table)
                used["mig"] |= {key for part in table.get("mig", []) for key in part}
    for kind, known in KEYS.items():
        assert used[kind] <= set(known)
        assert not set(known) - used[kind] - {"from", "until"}, kind
    for kind, text in sections():
        if kind in KEYS:
            named = {
                key
                for row in re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
                for key in re.findall(r"`(\w+)`", row)
            }
            faults = {"lost", "reset", "unreadable", "missing", "defect", "warning"}
            assert named - faults <= set(KEYS[kind]), kind


def test_the_page_names_what_is_shipped() -> None:
    text = PAGE.read_text()
    assert all(f"| `{name}` |" in text for name in shipped_names())
