"""Five stages that look at people in pictures: detect, age, orientation, describe, report.

They stand for YOLO, MiVOLO, MEBOW, LLaVA and a report, and are small: the pictures are drawn and the
models trained on the spot from one seed, so that nothing has to be downloaded. The computing is real,
on the GPU where torch finds one and on the CPU otherwise. Each stage reads what those before it have
written to the folder of the run and writes one file of its own, whole or not at all. A file named
STAGE.broken in that folder makes a stage fail, as damaged weights would.
"""

import json
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

# torch works without NumPy and complains all the same.
warnings.filterwarnings("ignore", message="Failed to initialize NumPy")

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn.functional import cross_entropy, mse_loss  # noqa: E402

SEED = 7
PICTURES = 24
SIDE, PERSON = 32, 8  # pixels
FACINGS = ("left", "right", "up", "down")
OLDEST = 80.0
WORDS = ("<end>", "a", "an", "young", "old", "person", "facing", *FACINGS)

torch.set_num_threads(1)
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


# ── the world ──


def person(age: Tensor, facing: Tensor) -> Tensor:
    """What people look like here, n x 1 x PERSON x PERSON: the older the brighter, and brighter still
    on the side that they face."""
    ramp = torch.linspace(0.0, 0.4, PERSON)
    across = ramp.expand(PERSON, PERSON)
    sides = torch.stack([across.flip(1), across, across.T.flip(0), across.T])
    return (0.4 + 0.5 * age / OLDEST)[:, None, None, None] + sides[facing][:, None]


def draw(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pictures with a person in each, and where, how old and facing whither that person is."""
    dice = torch.Generator().manual_seed(seed)
    age = torch.rand(count, generator=dice) * OLDEST
    facing = torch.randint(len(FACINGS), (count,), generator=dice)
    place = torch.randint(SIDE - PERSON, (count, 2), generator=dice)
    pictures = 0.1 * torch.rand(count, 1, SIDE, SIDE, generator=dice)
    for picture, (y, x), body in zip(pictures, place.tolist(), person(age, facing), strict=True):
        picture[:, y : y + PERSON, x : x + PERSON] += body
    return pictures, place, age, facing


def train(model: nn.Module, loss: Callable[[int], Tensor], steps: int) -> nn.Module:
    """`loss(step)` is that of a batch made for the step."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(steps):
        value = loss(step)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    print(f"trained {type(model).__name__} on {DEVICE}: loss {value.item():.4f}", flush=True)
    return model.eval()


def crops(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Only the people, to train on, with their age (0 to 1) and facing."""
    dice = torch.Generator().manual_seed(seed)
    age = torch.rand(count, generator=dice) * OLDEST
    facing = torch.randint(len(FACINGS), (count,), generator=dice)
    noise = 0.1 * torch.rand(count, 1, PERSON, PERSON, generator=dice)
    return (person(age, facing) + noise).to(DEVICE), age.to(DEVICE) / OLDEST, facing.to(DEVICE)


# ── the stages ──


def detect(run: Path) -> Any:
    """Where the person is: a filter as large as one learns to be hottest there."""
    model = nn.Conv2d(1, 1, PERSON, bias=False).to(DEVICE)

    def loss(step: int) -> Tensor:
        pictures, place, _, _ = draw(16, SEED + 1000 + step)
        heat = model(pictures.to(DEVICE)).flatten(1)
        width = SIDE - PERSON + 1
        return cross_entropy(heat, (place[:, 0] * width + place[:, 1]).to(DEVICE))

    train(model, loss, steps=100)
    pictures, place, _, _ = draw(PICTURES, SEED)
    heat = model(pictures.to(DEVICE)).flatten(1)
    width = SIDE - PERSON + 1
    found = [[hot // width, hot % width] for hot in heat.argmax(1).tolist()]
    off = torch.tensor(found).sub(place).abs().float().mean().item()
    return {"boxes": found, "pixels_off": off}


def found_people(run: Path) -> Tensor:
    pictures, _, _, _ = draw(PICTURES, SEED)
    boxes = read(run, "detect")["boxes"]
    cut = [
        picture[:, y : y + PERSON, x : x + PERSON]
        for picture, (y, x) in zip(pictures, boxes, strict=True)
    ]
    return torch.stack(cut).to(DEVICE)


def age(run: Path) -> Any:
    model = nn.Sequential(nn.Flatten(), nn.Linear(PERSON**2, 1)).to(DEVICE)

    def loss(step: int) -> Tensor:
        people, ages, _ = crops(64, SEED + 2000 + step)
        return mse_loss(model(people)[:, 0], ages)

    train(model, loss, steps=400)
    guessed = model(found_people(run))[:, 0] * OLDEST
    off = guessed.cpu().sub(draw(PICTURES, SEED)[2]).abs().mean().item()
    return {"ages": guessed.tolist(), "years_off": off}


def orientation(run: Path) -> Any:
    model = nn.Sequential(nn.Flatten(), nn.Linear(PERSON**2, len(FACINGS))).to(DEVICE)

    def loss(step: int) -> Tensor:
        people, _, facings = crops(64, SEED + 3000 + step)
        return cross_entropy(model(people), facings)

    train(model, loss, steps=200)
    guessed = model(found_people(run)).argmax(1)
    right = guessed.cpu().eq(draw(PICTURES, SEED)[3]).float().mean().item()
    return {"facings": guessed.tolist(), "right": right}


class Teller(nn.Module):
    """Says a sentence about numbers, word by word."""

    def __init__(self) -> None:
        super().__init__()
        self.begin = nn.Linear(1 + len(FACINGS), 32)
        self.words = nn.Embedding(len(WORDS), 16)
        self.cell = nn.GRUCell(16, 32)
        self.end = nn.Linear(32, len(WORDS))

    def forward(self, facts: Tensor, said: Tensor) -> Tensor:
        state, logits = torch.tanh(self.begin(facts)), []
        for word in said.T:
            state = self.cell(self.words(word), state)
            logits.append(self.end(state))
        return torch.stack(logits, 1)

    def tell(self, facts: Tensor, longest: int = 8) -> list[str]:
        said = torch.zeros(len(facts), 1, dtype=torch.long, device=DEVICE)
        for _ in range(longest):
            said = torch.cat([said, self(facts, said)[:, -1].argmax(1, keepdim=True)], 1)
        lines = [[WORDS[word] for word in line] for line in said[:, 1:].tolist()]
        return [
            " ".join(line[: line.index("<end>") if "<end>" in line else None]) for line in lines
        ]


def describe(run: Path) -> Any:
    """A sentence about each, by a model that learned to put such numbers into words."""
    model = Teller().to(DEVICE)

    def facts_of(ages: Tensor, facings: Tensor) -> Tensor:
        return torch.cat([ages[:, None], torch.eye(len(FACINGS), device=DEVICE)[facings]], 1)

    def loss(step: int) -> Tensor:
        _, ages, facings = crops(64, SEED + 4000 + step)
        is_old = ages > 0.5
        article = torch.where(is_old, WORDS.index("an"), WORDS.index("a"))
        old = torch.where(is_old, WORDS.index("old"), WORDS.index("young"))
        person, facing = (torch.full_like(old, WORDS.index(word)) for word in ("person", "facing"))
        whither = facings + WORDS.index(FACINGS[0])
        line = [article, old, person, facing, whither, torch.zeros_like(old)]
        said = torch.stack([torch.zeros_like(old), *line[:-1]], 1)
        logits = model(facts_of(ages, facings), said)
        return cross_entropy(logits.flatten(0, 1), torch.stack(line, 1).flatten())

    train(model, loss, steps=150)
    ages = torch.tensor(read(run, "age")["ages"], device=DEVICE) / OLDEST
    facings = torch.tensor(read(run, "orientation")["facings"], device=DEVICE)
    return {"sentences": model.tell(facts_of(ages, facings))}


def report(run: Path) -> Any:
    told = read(run, "describe")["sentences"]
    years, right = read(run, "age")["years_off"], read(run, "orientation")["right"]
    lines = [
        f"{len(told)} people found, {read(run, 'detect')['pixels_off']:.1f} pixels off on average;",
        f"their ages {years:.1f} years off, {100 * right:.0f} % of the orientations right.",
        *(f"{number}: {sentence}" for number, sentence in enumerate(told)),
    ]
    print("\n".join(lines))
    return {"lines": lines}


STAGES = {stage.__name__: stage for stage in (detect, age, orientation, describe, report)}


def read(run: Path, stage: str) -> Any:
    return json.loads((run / f"{stage}.json").read_text())


def main(name: str) -> None:
    run = Path(os.environ.get("RUN", "run"))
    run.mkdir(parents=True, exist_ok=True)
    if (run / f"{name}.broken").exists():
        sys.exit(
            f"{name}: the weights are damaged. Remove {run / name}.broken and requeue this job"
        )
    torch.manual_seed(SEED)
    made = run / f"{name}.json.new"
    made.write_text(json.dumps(STAGES[name](run)))
    made.rename(run / f"{name}.json")


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in STAGES:
        sys.exit(f"usage: python vision.py {'|'.join(STAGES)}")
    main(sys.argv[1])
