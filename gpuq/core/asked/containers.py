"""A job that is `docker run` or `podman run`: found out from its words, and what is added to them.

The client that gpuq starts is not the container: that is a child of its engine, sees the GPUs that it
is given by options, gets no variable unasked, and lives on when its client is killed. So gpuq tells
the client which GPUs, which variables, and where to write the container's id. All that is understood
of the options is where they end, as pflag does, which both clients read theirs with: an option that is
not a switch takes the next word unless its value stands behind "=".
Sources: docs.docker.com/reference/cli/docker/container/run, docs.podman.io (podman-run(1), podman(1)).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

DOCKER, PODMAN = "docker", "podman"
CDI_KIND = "nvidia.com/gpu"
CID_FILE = "container.cid"

# Options of both that take no value, before `run` and behind it.
_WITHOUT_VALUE_BEFORE = """
--debug --tls --tlsverify --version --help --remote --syslog --transient-store --trace --noout
"""
_WITHOUT_VALUE = """
--detach --disable-content-trust --env-host --help --http-proxy --init --interactive
--no-healthcheck --no-hosts --no-hostname --oom-kill-disable --passwd --privileged --publish-all
--quiet --read-only --read-only-tmpfs --replace --rm --rmi --rootfs --sig-proxy --tls-verify --tty
--unsetenv-all --use-api-socket
"""
_SWITCHES_BEFORE = frozenset(_WITHOUT_VALUE_BEFORE.split())
_SWITCHES = frozenset(_WITHOUT_VALUE.split())
_SHORT_SWITCHES_BEFORE = "Drvh"
_SHORT_SWITCHES = "ditPq"
_FALSE = ("0", "f", "F", "false", "False", "FALSE")  # as Go reads them
_GPU_VARIABLE = "NVIDIA_VISIBLE_DEVICES"


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerRun:
    """`client` are the words before `run`, which name the engine that another command of the same
    client is to talk to; `begin` is where the options behind `run` begin."""

    engine: str
    client: tuple[str, ...]
    begin: int
    is_detached: bool = False
    names_cid_file: bool = False
    chooses_gpus: bool = False  # by options of its own


def find_container_run(argv: Sequence[str]) -> ContainerRun | None:
    """What a command is, if it is one of these."""
    engine = argv[0].rsplit("/", 1)[-1] if argv else ""
    if engine not in (DOCKER, PODMAN):
        return None
    before = list(_options(argv, 1, _SWITCHES_BEFORE, _SHORT_SWITCHES_BEFORE))
    at = before[-1].end if before else 1
    client = tuple(argv[:at])
    if at < len(argv) and argv[at] == "container":
        at += 1
    if at >= len(argv) or argv[at] != "run":
        return None
    options = list(_options(argv, at + 1, _SWITCHES, _SHORT_SWITCHES))
    return ContainerRun(
        engine=engine,
        client=client,
        begin=at + 1,
        is_detached=any(one.name in ("-d", "--detach") and one.is_on for one in options),
        names_cid_file=any(one.name == "--cidfile" for one in options),
        chooses_gpus=any(map(_chooses_gpus, options)),
    )


def refusal(argv: Sequence[str]) -> str | None:
    """Why such a command cannot be a job."""
    run = find_container_run(argv)
    if run is None:
        return None
    if run.is_detached:
        return (
            f"{run.engine} run -d returns at once and leaves its container to itself, so the job would "
            "end at its beginning. Leave out -d: gpuq runs it in the background anyway"
        )
    if run.names_cid_file:
        return (
            f"{run.engine} run --cidfile: gpuq names that file itself, to find the container by. Leave "
            f"it out: the id stands in {CID_FILE} beside the job's log"
        )
    return None


def with_gpus(
    argv: Sequence[str],
    run: ContainerRun,
    *,
    uuids: Sequence[str],
    simulated: bool,
    variables: Mapping[str, str],
    cid_file: str,
) -> list[str]:
    """The words with what gpuq adds to them, before the user's own options, so that those win. There
    is no device behind a simulated GPU: its uuid is told by GPUQ_GPU_UUIDS alone."""
    added = [f"--cidfile={cid_file}"]
    if uuids and not simulated and not run.chooses_gpus:
        added += _gpu_options(run.engine, uuids)
    for name in sorted(variables):
        added += ["-e", name] if name.startswith("GPUQ_") else []
    return [*argv[: run.begin], *added, *argv[run.begin :]]


def removal(run: ContainerRun) -> list[str]:
    """What ends a container and removes it, asked of the same engine; its id is to follow. Podman
    would give it ten seconds more, after the grace that the job had."""
    at_once = ["-t", "0"] if run.engine == PODMAN else []
    return [*run.client, "rm", "-f", *at_once]


def container_words(run: ContainerRun, *, gpus: int, simulated: bool) -> str:
    """ "docker, given its GPUs by UUID"."""
    if run.chooses_gpus:
        return f"{run.engine}, with the GPUs that its own options name"
    if not gpus:
        return f"{run.engine}, given no GPU"
    if simulated:
        return f"{run.engine}, given no device: its GPUs are simulated, GPUQ_GPU_UUIDS names them"
    return f"{run.engine}, given its GPUs by UUID"


def _gpu_options(engine: str, uuids: Sequence[str]) -> list[str]:
    """Docker reads the value of --gpus as a line of CSV, so its commas stand in quotes of their own."""
    if engine == DOCKER:
        return ["--gpus", f'"device={",".join(uuids)}"']
    return [word for uuid in uuids for word in ("--device", f"{CDI_KIND}={uuid}")]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Option:
    """A short one of several in one word is one for each letter. `end` is the place behind it."""

    name: str
    value: str | None
    end: int

    @property
    def is_on(self) -> bool:
        return self.value not in _FALSE


def _options(argv: Sequence[str], at: int, switches: frozenset[str], short: str) -> list[_Option]:
    """All up to the first word that is none, which is the image, or the name of the command."""
    found: list[_Option] = []
    while at < len(argv) and argv[at].startswith("-") and argv[at] not in ("-", "--"):
        read = _long(argv, at, switches) if argv[at].startswith("--") else _short(argv, at, short)
        found += read
        at = read[-1].end
    return found


def _long(argv: Sequence[str], at: int, switches: frozenset[str]) -> list[_Option]:
    name, equals, value = argv[at].partition("=")
    if equals:
        return [_Option(name=name, value=value, end=at + 1)]
    if name in switches:
        return [_Option(name=name, value=None, end=at + 1)]
    return [_Option(name=name, value=_word(argv, at + 1), end=at + 2)]


def _short(argv: Sequence[str], at: int, switches: str) -> list[_Option]:
    """ "-it", "-eK=V", "-e K=V", "-d=false"."""
    word = argv[at][1:]
    found: list[_Option] = []
    for place, letter in enumerate(word):
        rest = word[place + 1 :]
        if rest.startswith("="):
            return [*found, _Option(name=f"-{letter}", value=rest[1:], end=at + 1)]
        if letter not in switches:
            value = rest or _word(argv, at + 1)
            return [*found, _Option(name=f"-{letter}", value=value, end=at + (1 if rest else 2))]
        found.append(_Option(name=f"-{letter}", value=None, end=at + 1))
    return found


def _word(argv: Sequence[str], at: int) -> str | None:
    return argv[at] if at < len(argv) else None


def _chooses_gpus(option: _Option) -> bool:
    value = option.value or ""
    if option.name == "--device":
        return value.startswith((f"{CDI_KIND}=", "/dev/nvidia"))
    if option.name in ("-e", "--env"):
        return value.partition("=")[0] == _GPU_VARIABLE
    return option.name == "--gpus"
