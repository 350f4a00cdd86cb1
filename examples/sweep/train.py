"""One trial of a sweep: a small network learns to tell two spirals apart.

    python train.py --lr 0.01 --width 64             by hand
    gpuq submit --grid lr=0.1,0.01 --grid width=16,64 -- python train.py --lr {lr} --width {width}

Under gpuq it reports how it gets on and keeps its model in the job's own directory; by hand it does
the same without reporting, and keeps the model where it stands.
"""

import argparse
import math
import os
import sys
import warnings

# torch works without NumPy and complains all the same, into the log of every trial.
warnings.filterwarnings("ignore", message="Failed to initialize NumPy")

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from gpuq import job  # noqa: E402

POINTS = 400  # of each spiral
TURNS = 1.75
EPOCHS = 300  # about five seconds on one CPU core
REPORT_EVERY = 10
HELD_OUT = 200  # points, never trained on


def main() -> None:
    asked = read_arguments()
    torch.set_num_threads(1)  # trials run side by side; one thread also keeps CPU sums in order
    if job.seed() is None:
        torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    points, labels = spirals(device)
    model = make_model(asked.width).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=asked.lr, momentum=0.9)
    for epoch in range(1, asked.epochs + 1):
        loss = train_one_epoch(model, optimizer, points[HELD_OUT:], labels[HELD_OUT:])
        if not math.isfinite(loss):
            raise RuntimeError(f"the loss is {loss} after epoch {epoch}")
        if epoch % REPORT_EVERY == 0 or epoch == asked.epochs:
            acc = accuracy(model, points[:HELD_OUT], labels[:HELD_OUT])
            job.report(progress=epoch / asked.epochs, epoch=epoch, loss=loss, acc=acc)
            print(f"epoch {epoch:4}  loss {loss:.4f}  acc {acc:.3f}", flush=True)
    torch.save(model.state_dict(), os.path.join(job.output_dir, "model.pt"))


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Tell two spirals apart.")
    parser.add_argument("--lr", type=float, default=0.03)
    parser.add_argument("--width", type=int, default=32, help="of the hidden layers")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    return parser.parse_args()


def spirals(device: str) -> tuple[Tensor, Tensor]:
    """(2 POINTS, 2) coordinates and (2 POINTS,) labels of 0 or 1, shuffled; the same in every trial."""
    random = torch.Generator().manual_seed(1)
    angle = torch.rand(2 * POINTS, generator=random).sqrt() * TURNS * 2 * math.pi
    labels = torch.arange(2 * POINTS) % 2
    turned = angle + labels * math.pi
    points = torch.stack((angle * turned.cos(), angle * turned.sin()), dim=1) / 6
    points += 0.02 * torch.randn(points.shape, generator=random)
    order = torch.randperm(2 * POINTS, generator=random)
    return points[order].to(device), labels[order].to(device)


def make_model(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(2, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 2)
    )


def train_one_epoch(
    model: nn.Module, optimizer: torch.optim.Optimizer, points: Tensor, labels: Tensor
) -> float:
    """The mean loss (nats) over the epoch."""
    total = 0.0
    for batch in torch.randperm(len(points), device="cpu").split(20):
        loss = nn.functional.cross_entropy(model(points[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item() * len(batch)
    return total / len(points)


@torch.no_grad()
def accuracy(model: nn.Module, points: Tensor, labels: Tensor) -> float:
    """The share of points that are put on the right spiral."""
    return (model(points).argmax(dim=1) == labels).float().mean().item()


if __name__ == "__main__":
    sys.exit(main())
