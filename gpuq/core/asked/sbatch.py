"""What a script says to sbatch, in the words of `gpuq submit`.

What makes sense on one machine is honoured; the rest is named, and harms nothing. The options are those
of https://slurm.schedmd.com/sbatch.html.
"""

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field

from gpuq.core.units import parse_seconds

_LETTERS = """
A:account a:array B:extra-node-info b:begin C:constraint c:cpus-per-task D:chdir d:dependency e:error
F:nodefile G:gpus H:hold i:input J:job-name k:no-kill L:licenses M:clusters m:distribution N:nodes
n:ntasks O:overcommit o:output p:partition Q:quiet q:qos S:core-spec s:oversubscribe t:time v:verbose
W:wait w:nodelist x:exclude
"""
SHORT = {pair[0]: pair[2:] for pair in _LETTERS.split()}
_BARE = """
contiguous exclusive get-user-env hold ignore-pbs nice no-kill no-requeue overcommit oversubscribe
parsable propagate quiet reboot requeue spread-job test-only use-min-nodes verbose wait
"""
BARE = frozenset(_BARE.split())  # without a value, or with one behind = only
# Ours in other words, taken over as they are.
SAME = {
    "job-name": "--name",
    "array": "--array",
    "output": "--output",
    "error": "--stderr",
    "chdir": "--cwd",
}
# That is how it is here anyway.
GIVEN = {
    "parsable": None,
    "quiet": None,
    "verbose": None,
    "no-requeue": None,
    "ntasks": "1",
    "nodes": "1",
    "ntasks-per-node": "1",
    "open-mode": "append",
    "export": "ALL",
    "kill-on-invalid-dep": "yes",
}
_SIZE = re.compile(r"(\d+)([KMGT]?)B?", re.IGNORECASE)
_NOW = re.compile(r"now\+(\d+)([a-z]*)")
_ENDLESS = ("0", "infinite", "unlimited")


@dataclass(frozen=True, slots=True)
class Said:
    """One option with its value; None where it has none."""

    line: int
    name: str
    value: str | None

    @property
    def text(self) -> str:
        return f"--{self.name}" if self.value is None else f"--{self.name}={self.value}"


@dataclass(slots=True)
class Translation:
    """`words` are options of `gpuq submit`, line by line. `ignored` is what means nothing here,
    `unmet` sentences about what cannot be had here."""

    words: list[tuple[int, list[str]]] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    unmet: list[str] = field(default_factory=list)


class NotUnderstood(ValueError):
    """An option of sbatch whose value cannot be read."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(why)
        self.line = line


def translate(
    lines: Sequence[tuple[int, Sequence[str]]],
    known: Collection[str],
    queues: Callable[[], Collection[str]],
) -> Translation:
    """All that a script's #SBATCH lines say; NotUnderstood. `known` are the options that there are on
    our side, `queues` gives the names of ours."""
    said = [one for line, words in lines for one in split_options(line, words)]
    translation, translator = Translation(), _Translator(said, queues)
    for one in said:
        try:
            words = translator.words(one)
        except ValueError as error:
            raise NotUnderstood(one.line, f"{one.text}: {error}") from None
        if isinstance(words, str):
            translation.unmet.append(f"line {one.line}: {one.text} {words}")
        elif words is None or not {w for w in words if w.startswith("--")} <= set(known):
            translation.ignored.append(f"--{one.name}")
        elif words:
            translation.words.append((one.line, words))
    translation.ignored = list(dict.fromkeys(translation.ignored))
    return translation


def split_options(line: int, words: Sequence[str]) -> Iterator[Said]:
    """Words as getopt_long takes them apart: -N1, -N 1, --nodes=1, --nodes 1."""
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word.startswith("--") and len(word) > 2:
            name, equals, value = word[2:].partition("=")
            takes = not equals and name not in BARE and rest and not rest[0].startswith("-")
            yield Said(line, name, rest.pop(0) if takes else value if equals else None)
        elif word.startswith("-") and word[1:2] in SHORT:
            name, value = SHORT[word[1]], word[2:]
            takes = not value and name not in BARE and rest
            yield Said(line, name, rest.pop(0) if takes else value or None)
        else:
            raise NotUnderstood(line, f"{word!r} is no option of sbatch")


class _Translator:
    """`words` of an option: ours, none at all where nothing is to be done, None where it means nothing
    here, or a sentence about what is not met."""

    def __init__(self, said: Sequence[Said], queues: Callable[[], Collection[str]]) -> None:
        self._queues = queues
        self._values = {one.name: one.value for one in said}

    def words(self, one: Said) -> list[str] | str | None:
        value = one.value or ""
        if one.name in GIVEN and GIVEN[one.name] in (None, value):
            return []
        if one.name in SAME:
            return [SAME[one.name], _wanted(value)]
        method = getattr(self, f"_{one.name.replace('-', '_')}", None)
        return None if method is None else method(value)

    def _time(self, value: str) -> list[str]:
        if value.lower() in _ENDLESS:
            return []
        return ["--time", f"{slurm_seconds(value):g}s"]

    def _gres(self, value: str) -> list[str] | None:
        found = [part for part in value.split(",") if part.split(":")[0] in ("gpu", "gres/gpu")]
        if value.lower() == "none":
            return ["--gpus", "0"]
        return self._gpus(found[0].partition(":")[2] or "1") if found else None

    def _gpus(self, value: str) -> list[str]:
        """ "2", "a100:2", "a100"."""
        model, _, number = value.rpartition(":")
        if not number.isdecimal():
            model, number = number, "1"
        return ["--gpus", number] + (["--gpu-model", model] if model else [])

    _gpus_per_node = _gpus_per_task = _gpus

    def _cpus_per_task(self, value: str) -> list[str]:
        return ["--cpus", str(_whole(value))]

    def _cpus_per_gpu(self, value: str) -> list[str]:
        return ["--cpus", str(_whole(value) * max(self._gpu_count(), 1))]

    def _mem(self, value: str) -> list[str]:
        return self._memory(value, 1)

    def _mem_per_cpu(self, value: str) -> list[str]:
        return self._memory(value, _whole(self._values.get("cpus-per-task") or "1"))

    def _mem_per_gpu(self, value: str) -> list[str]:
        return self._memory(value, max(self._gpu_count(), 1))

    def _memory(self, value: str, times: int) -> list[str]:
        """In mebibytes unless a unit is said; 0 is all that there is."""
        match = _SIZE.fullmatch(value)
        if match is None:
            raise ValueError("it is no size, like 16G")
        size = int(match[1]) * times
        return ["--mem", f"{size}{match[2].upper() or 'M'}"] if size else []

    def _gpu_count(self) -> int:
        for name in ("gpus", "gpus-per-node", "gpus-per-task"):
            if value := self._values.get(name):
                return int(self._gpus(value)[1])
        words = self._gres(self._values.get("gres") or "")
        return int(words[1]) if words else 0

    def _begin(self, value: str) -> list[str]:
        match = _NOW.fullmatch(value)
        if match is None:
            return ["--begin", _wanted(value)]
        unit = (match[2] or "seconds")[0]
        return [
            "--begin",
            f"+{int(match[1]) * (7 if unit == 'w' else 1)}{'d' if unit == 'w' else unit}",
        ]

    def _hold(self, value: str) -> list[str]:
        return ["--hold"]

    def _nice(self, value: str) -> list[str]:
        return ["--priority", str(-int(value or "100"))]

    def _dependency(self, value: str) -> list[str] | str:
        """That no other job of its name runs (singleton) is what nobody here sees to."""
        kept = [part for part in _wanted(value).split(",") if part != "singleton"]
        if not kept:
            return "is not seen to: others of its name may run at the same time (see --key)"
        return ["--dependency", ",".join(kept)]

    def _requeue(self, value: str) -> list[str]:
        return ["--preemptible"]

    def _signal(self, value: str) -> list[str] | str:
        """Slurm sends it before the time limit, and to what is preempted."""
        name = value.rpartition(":")[2].partition("@")[0]
        if "requeue" not in self._values:
            return "is not sent: at its time limit a job gets TERM, and KILL after its --grace"
        return ["--preempt-signal", name]

    def _export(self, value: str) -> list[str] | str:
        pairs = [pair for pair in value.split(",") if "=" in pair]
        if not value.startswith("ALL"):
            return "does not keep out the rest: a job has the whole environment of its submit"
        return [word for pair in pairs for word in ("--env", pair)]

    def _partition(self, value: str) -> list[str] | None:
        names = self._queues()
        found = next((name for name in value.split(",") if name in names), None)
        return None if found is None else ["--queue", found]

    def _nodes(self, value: str) -> list[str] | str:
        if value.split("-")[0] == "1":
            return []
        return "cannot be had: this is one machine, and it runs there alone (SLURM_NNODES=1)"

    def _ntasks(self, value: str) -> str:
        return "cannot be had: the script runs once, as one task (SLURM_NTASKS=1)"

    _ntasks_per_node = _ntasks


def slurm_seconds(value: str) -> float:
    """ "90" is minutes, "1-12" a day and a half; the rest as `parse_seconds` has it."""
    days, dash, hours = value.partition("-")
    if dash and hours.isdecimal():
        return float(_whole(days)) * 86400 + float(hours) * 3600
    if value.isdecimal():
        return float(value) * 60
    if not re.fullmatch(r"[\d:-]+", value):
        raise ValueError("it is no time, like 90 (minutes), 4:00:00 or 1-12:00:00")
    return parse_seconds(value)


def _whole(value: str) -> int:
    if not (value.isascii() and value.isdecimal()):
        raise ValueError("it is no whole number")
    return int(value)


def _wanted(value: str) -> str:
    if not value:
        raise ValueError("it wants a value")
    return value
