"""Which GPUs people mean, who may say what of them, and what is answered."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

from gpuq.core.gpus.breaker import bar_of
from gpuq.core.gpus.gpu import Gpu
from gpuq.core.model import GpuHealth
from gpuq.core.policy import Policy
from gpuq.daemon.callers.discretion import Discretion
from gpuq.daemon.callers.peer import Peer
from gpuq.daemon.requests.gpu_refs import find_gpus
from gpuq.daemon.requests.gpu_requests import GpuRequests
from gpuq.daemon.requests.views import gpu_view
from gpuq.daemon.store import Store
from gpuq.errors import NothingMatched, NotPermitted, UsageError
from tests import stored
from tests.builders import foreign, gpu
from tests.stored import NOW

CARDS = [
    gpu(0, uuid="GPU-8f3a0000", bus_id="00000000:01:00.0"),
    gpu(1, uuid="GPU-8f3b0000", bus_id="00000000:02:00.0"),
    gpu(2, uuid="GPU-91000000", bus_id="00000001:02:00.0"),
    gpu(3, uuid="MIG-1-0", parent="GPU-77000000"),
    gpu(4, uuid="MIG-1-1", parent="GPU-77000000"),
]


# ─── names ───────────────────────────────────────────────────────────────────────────────────────


def found(*refs: str) -> list[int]:
    return [card.index for card in find_gpus(refs, CARDS)]


def test_a_gpu_has_many_names() -> None:
    assert found("2") == found("gpu:2") == found("GPU:2") == [2]
    assert found("0-1,3") == found("3", "1", "0-1") == [0, 1, 3]
    assert found("GPU-8f3a") == found("gpu-8F3A") == found("gpu:GPU-8f3a") == [0]
    assert found("01:00.0") == found("00000000:01:00.0") == [0]
    assert found("MIG-1-1") == [4]
    assert found("GPU-77") == [3, 4], "a card means all its instances"


@pytest.mark.parametrize(
    ("ref", "error", "words"),
    [
        ("7", NothingMatched, "there is no GPU 7: this machine has 0-4"),
        ("3-5", NothingMatched, "there is no GPU 5: this machine has 0-4"),
        ("0-99999999999", NothingMatched, "there is no GPU 5"),
        ("GPU-8e3a0000", NothingMatched, "did you mean GPU-8f3a0000? This machine has 0-4"),
        ("GPU-8e3a", NothingMatched, "did you mean GPU-8f3a0000?"),
        ("carrot", NothingMatched, "there is no GPU 'carrot': this machine has 0-4"),
        ("GPU-8f3", UsageError, "could be any of 2: write more of it"),
        ("02:00.0", UsageError, "could be any of 2"),
        ("3-1", UsageError, "runs backwards"),
        ("1,x", UsageError, "neither a number nor a range"),
    ],
)
def test_a_name_that_is_nobodys_or_several_ones_is_refused(
    ref: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error) as refused:
        find_gpus([ref], CARDS)
    assert words in str(refused.value)


def test_no_name_at_all_is_no_wish_for_all_of_them() -> None:
    with pytest.raises(UsageError, match="no GPU is named"):
        find_gpus([], CARDS)
    with pytest.raises(NothingMatched, match="this machine has none"):
        find_gpus(["0"], [])


# ─── requests ────────────────────────────────────────────────────────────────────────────────────

ADMIN = Peer(uid=4241, gid=0, pid=1, user="ann", is_admin=True)
SOMEBODY = Peer(uid=4242, gid=0, pid=1, user="bob")


class World:
    """What was last seen, and what was wished of it."""

    gpu_trouble: str | None = None

    def __init__(self, store: Store) -> None:
        self.store = store
        self.cards: list[Gpu] = [gpu(0), gpu(1)]
        self.under_test: dict[str, str] = {}
        self.wished: list[str] = []

    @property
    def health(self) -> list[GpuHealth]:
        return [
            GpuHealth(gpu=uuid, quarantine=row.quarantine, under_test=self.under_test.get(uuid))
            for uuid, row in self.store.health.rows().items()
        ]

    @property
    def gpus(self) -> list[Gpu]:
        known = {one.gpu: one for one in self.health}
        return [replace(card, bar=bar_of(card, known[card.uuid], Policy())) for card in self.cards]

    def wish_tests(self, uuids: Any, actor: str) -> None:
        self.wished += uuids

    def wake(self) -> None:
        pass

    async def settle(self) -> None:
        pass


@pytest.fixture
def world() -> Iterator[World]:
    with closing(Store(":memory:")) as store:
        yield World(stored.with_gpus(store))


def discretion(peer: Peer) -> Discretion:
    return Discretion(peer=peer, visibility="all", owner_of=lambda job: 4242)


def ask(world: World, what: str, peer: Peer = ADMIN, **request: Any) -> Any:
    requests = GpuRequests(world.store, world, Policy, lambda: world.cards, discretion)
    answer = asyncio.run(getattr(requests, what)(request, peer))
    assert json.loads(json.dumps(answer)) == answer, "it goes over the wire as it is"
    return answer


@pytest.mark.parametrize("what", ["drain", "resume", "test"])
def test_only_an_admin_may_say_what_becomes_of_a_gpu(world: World, what: str) -> None:
    with pytest.raises(NotPermitted, match="only an admin may"):
        ask(world, what, SOMEBODY, refs=["0"])
    assert world.wished == []
    assert stored.count(world.store, "gpu_wishes") == 0


def test_everybody_may_ask_why(world: World) -> None:
    assert ask(world, "why", SOMEBODY, ref="gpu:1")["sentences"][0].endswith("is free.")
    with pytest.raises(UsageError, match="one GPU at a time"):
        ask(world, "why", ref="0-1")


def test_all_that_are_named_are_drained_or_none(world: World) -> None:
    with pytest.raises(NothingMatched):
        ask(world, "drain", refs=["0", "7"], reason="new fan")
    assert stored.count(world.store, "gpu_wishes") == 0
    answer = ask(world, "drain", refs=["0-1"], reason="new fan")
    assert [(one["index"], one["done"], one["reason"]) for one in answer["gpus"]] == [
        (0, "drained", "new fan"),
        (1, "drained", "new fan"),
    ]
    assert world.store.health.rows()["GPU-1"].drained_by == "ann"
    with pytest.raises(UsageError, match="printable"):
        ask(world, "drain", refs=["0"], reason="a\nb")


def test_who_resumes_a_gpu_hears_what_came_of_it(world: World) -> None:
    def told(**request: Any) -> tuple[str, str | None]:
        (one,) = ask(world, "resume", refs=["0"], **request)["gpus"]
        return one["done"], one["reason"]

    assert told() == ("nothing", None)
    ask(world, "drain", refs=["0"])
    assert told() == ("resumed", None)
    aside = {"is_lasting": False, "boot_id": "boot", "now": NOW}
    world.store.health.set_aside("GPU-0", "XID 79", **aside)  # type: ignore[arg-type]
    world.under_test = {"GPU-0": "resumed by ann"}
    assert told() == ("testing", "XID 79")
    world.under_test = {}
    world.cards[0] = gpu(0, processes=[foreign()])
    assert told() == ("waits", "outside gpuq: python 4242 bob")
    world.cards[0] = gpu(0, fault="is lost")
    assert told() == ("waits", "is lost")


def test_a_gpu_that_is_not_idle_is_not_tested_and_says_why(world: World) -> None:
    world.cards = [gpu(0, processes=[foreign()]), gpu(1)]
    world.under_test = {"GPU-1": "asked by ann"}
    answer = ask(world, "test")
    assert [(one["done"], one["reason"]) for one in answer["gpus"]] == [
        ("busy", "outside gpuq: python 4242 bob"),
        ("testing", None),
    ]
    assert world.wished == ["GPU-0", "GPU-1"]
    assert [one["index"] for one in ask(world, "test", refs=["1"])["gpus"]] == [1]


def test_a_gpu_shows_all_that_is_known_of_its_health(world: World) -> None:
    store = world.store
    store.health.tested("GPU-0", "wrong sums", {"verdict": "bad", "tflops": 1.0}, now=NOW)
    store.health.set_aside("GPU-0", "its test failed", is_lasting=False, boot_id="b", now=NOW + 1)
    store.wished.drain_gpu("GPU-0", "new fan", actor="bob", now=NOW + 2)
    card = gpu(0, warnings=("ECC is off",), parent="GPU-77", energy_j=7.0, locked_by="bob")
    view = gpu_view(card, [], Policy(), store.health.rows()["GPU-0"], under_test="asked")
    assert view["drained"] == {"actor": "bob", "reason": "new fan", "at": NOW + 2}
    assert (view["quarantine"], view["quarantined_at"]) == ("its test failed", NOW + 1)
    assert (view["tested_at"], view["test"]) == (NOW, {"verdict": "bad", "tflops": 1.0})
    assert (view["under_test"], view["warnings"]) == ("asked", ["ECC is off"])
    assert (view["parent"], view["energy_j"], view["locked_by"]) == ("GPU-77", 7.0, "bob")
    nothing = gpu_view(gpu(1), [], Policy())
    names = ("drained", "quarantine", "tested_at", "test", "under_test", "parent", "locked_by")
    assert [nothing[name] for name in names] == [None] * len(names)
    on_it = gpu_view(gpu(0, processes=[foreign()]), [], Policy())["processes"]
    assert (on_it[0]["unit"], on_it[0]["ignored"]) == (None, False)
