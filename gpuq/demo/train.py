"""One trial of `gpuq demo`: a small GRU learns Python's own help text, character by character.

It runs in the job's process with torch and the standard library, and imports nothing of gpuq.
"""

import argparse
import json
import math
import os
import pydoc_data.topics
import sys
import time
import warnings
from pathlib import Path

# torch works without NumPy and complains all the same, into the log of every trial.
warnings.filterwarnings("ignore", message="Failed to initialize NumPy")

try:
    import torch
    from torch import Tensor, nn
    from torch.nn.functional import cross_entropy
except ImportError:
    sys.exit("gpuq demo needs torch: pip install '.[demo]' in the folder of gpuq's source")

STEPS = 400  # about five seconds on one CPU core
BATCH = 16
WINDOW = 64  # characters the model reads in one go
HELD_OUT = 32_768  # characters at the end of the text, never trained on
WIDTH = 96
DIVERGED = 3  # exit code


class Diverged(Exception):
    """The loss stopped being a number."""

    def __init__(self, step: int) -> None:
        super().__init__(f"diverged at step {step}")


class CharacterModel(nn.Module):
    def __init__(self, characters: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(characters, WIDTH)
        self.read = nn.GRU(WIDTH, WIDTH, batch_first=True)
        self.guess = nn.Linear(WIDTH, characters)

    def forward(self, windows: Tensor) -> Tensor:
        """(batch, n + 1) characters → the mean loss, in nats, of guessing each successor."""
        states, _ = self.read(self.embed(windows[:, :-1]))
        guesses = self.guess(states)
        return cross_entropy(guesses.flatten(0, 1), windows[:, 1:].flatten())


def main() -> int:
    asked = read_arguments()
    asked.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # trials run side by side; one thread also keeps CPU sums in order
    torch.manual_seed(asked.seed)

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, characters = prepare(device)

    began = time.perf_counter()
    train_loss = val_loss = None
    try:
        train_loss = train(model, characters[:-HELD_OUT], asked.lr, asked.steps)
        val_loss = evaluate(model, characters[-HELD_OUT:], asked.steps)
        ending = f"done lr {asked.lr:g} val_loss {val_loss:.4f} device {device}"
    except Diverged as diverged:
        ending = str(diverged)

    result = {
        "lr": asked.lr,
        "seed": asked.seed,
        "steps": asked.steps,
        "val_loss": val_loss,
        "train_loss": train_loss,
        "device": device,
        "seconds": round(time.perf_counter() - began, 3),
    }
    write_whole(asked.out / "result.json", json.dumps(result, indent=2) + "\n")
    say(ending)  # last, so that whoever reads it finds the result
    return DIVERGED if val_loss is None else 0


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m gpuq.demo.train", description=__doc__)
    parser.add_argument("--lr", type=rate, required=True, help="learning rate of AdamW")
    parser.add_argument("--seed", type=int, default=os.environ.get("GPUQ_SEED") or "0")
    parser.add_argument("--steps", type=count, default=STEPS)
    parser.add_argument("--out", type=Path, default=os.environ.get("GPUQ_OUTPUT_DIR") or ".")
    return parser.parse_args()


def rate(text: str) -> float:
    value = float(text)
    if not (value > 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"a learning rate is above 0, not {text}")
    return value


def count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"a trial has at least 1 step, not {text}")
    return value


def prepare(device: str) -> tuple[CharacterModel, Tensor]:
    text = read_text()
    alphabet = sorted(set(text))
    model = CharacterModel(len(alphabet)).to(device)
    say(f"device {device}, model {size(model):,} parameters, text {len(text):,} characters")
    return model, encode(text, alphabet).to(device)


def read_text() -> str:
    """Every topic of Python's `help()`, each paragraph once.

    Topics quote each other: with the quotes, 14 % of the held-out tail would be trained on.
    """
    topics = pydoc_data.topics.topics
    paragraphs = "\n\n".join(topics[name] for name in sorted(topics)).split("\n\n")
    return "\n\n".join(dict.fromkeys(paragraphs))


def size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def encode(text: str, alphabet: list[str]) -> Tensor:
    place = {character: index for index, character in enumerate(alphabet)}
    return torch.tensor([place[character] for character in text])


def train(model: nn.Module, characters: Tensor, lr: float, steps: int) -> float:
    """→ the loss that the last line says: the mean since the line before it."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    stride = max(1, steps // 50)
    recent: list[float] = []
    mean = math.nan
    for step in range(1, steps + 1):
        loss = model(draw(characters))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        recent.append(finite(loss.item(), step))
        if step % stride == 0 or step == steps:
            mean = sum(recent) / len(recent)
            recent.clear()
            say(f"step {step}/{steps} loss {mean:.4f}")
    return mean


def draw(characters: Tensor) -> Tensor:
    """A batch of windows, each with the successor of its last character, from random places."""
    starts = torch.randint(len(characters) - WINDOW, (BATCH, 1))
    return characters[(starts + torch.arange(WINDOW + 1)).to(characters.device)]


@torch.no_grad()
def evaluate(model: nn.Module, characters: Tensor, step: int) -> float:
    windows = characters.unfold(0, WINDOW + 1, WINDOW)
    return finite(model(windows).item(), step)


def finite(loss: float, step: int) -> float:
    if not math.isfinite(loss):
        raise Diverged(step)
    return loss


def write_whole(path: Path, text: str) -> None:
    """Under another name first, so that nobody ever reads half of it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
