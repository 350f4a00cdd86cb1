"""A training loop that writes how many steps a second it made: a small convolutional network on images
of noise, which is enough to keep a core or a GPU at work.

    python train_steps.py cpu|cuda SECONDS FILE
"""

import sys
import time
from pathlib import Path

import torch
from torch import nn

WARM_STEPS = 5
BATCH = 32


def main() -> None:
    device, seconds, file = sys.argv[1], float(sys.argv[2]), Path(sys.argv[3])
    torch.manual_seed(1)
    torch.set_num_threads(1)
    model = network().to(device)
    images = torch.randn(BATCH, 3, 32, 32, device=device)
    labels = torch.randint(10, (BATCH,), device=device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    step = Step(model, optimizer, images, labels)
    for _ in range(WARM_STEPS):
        step()
    steps, began = 0, time.perf_counter()
    while (took_s := time.perf_counter() - began) < seconds or not steps:
        step()
        steps += 1
    file.write_text(f"{steps / took_s}")


def network() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(32 * 8 * 8, 10)),
    )


class Step:
    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        images: torch.Tensor,
        labels: torch.Tensor,
    ) -> None:
        self._model, self._optimizer = model, optimizer
        self._images, self._labels = images, labels

    def __call__(self) -> None:
        """Waits for the loss, so that a step on a GPU is over when it returns."""
        self._optimizer.zero_grad()
        loss = nn.functional.cross_entropy(self._model(self._images), self._labels)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        loss.item()


if __name__ == "__main__":
    main()
