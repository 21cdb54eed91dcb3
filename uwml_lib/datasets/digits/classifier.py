"""A small network on crops of pictures, whose activations are the features of the embedded data sets."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

CROP_SIZE = 16


def crop(pixels: np.ndarray, boxes: np.ndarray) -> Tensor:
    """Cut out regions with bilinear sampling: (N * R, 3, 16, 16) float32, in about -1..1.

    pixels: (N, height, width, 3) uint8. boxes: (N, R, 4) float32, x1, y1, x2, y2 as shares of width and height.
    """
    steps = torch.linspace(0.5 / CROP_SIZE, 1 - 0.5 / CROP_SIZE, CROP_SIZE)
    x1, y1, x2, y2 = torch.from_numpy(boxes).unbind(-1)
    x = x1[..., None] + (x2 - x1)[..., None] * steps
    y = y1[..., None] + (y2 - y1)[..., None] * steps
    shape = (*x.shape[:2], CROP_SIZE, CROP_SIZE)
    grid = torch.stack([x[:, :, None, :].expand(shape), y[:, :, :, None].expand(shape)], dim=-1) * 2 - 1
    picture = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    crops = F.grid_sample(picture, grid.flatten(1, 2), padding_mode="border", align_corners=False)
    return crops.unflatten(2, (boxes.shape[1], CROP_SIZE)).transpose(1, 2).flatten(0, 1)


class CropClassifier(nn.Module):
    """A small convolutional network that names the digit and the colour in a crop (B, 3, 16, 16) float32.

    Returns the hidden activations (B, hidden), the digit logits (B, digits) and the colour logits (B, colours).
    """

    def __init__(self, hidden: int, digits: int, colours: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(32 * (CROP_SIZE // 4) ** 2, hidden), nn.ReLU(),
        )  # fmt: skip
        self.digit = nn.Linear(hidden, digits)
        self.colour = nn.Linear(hidden, colours)

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hidden = self.body(crops)
        return hidden, self.digit(hidden), self.colour(hidden)


def train_classifier(
    model: CropClassifier, crops: Tensor, digit: Tensor, colour: Tensor, epochs: int, progress: Callable[[str], None]
) -> None:
    """Train on crops (B, 3, 16, 16) with labels digit and colour (B,); draws from torch's global random state."""
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for epoch in range(epochs):
        total = 0.0
        for rows in torch.randperm(len(crops)).split(128):
            _, digit_logits, colour_logits = model(crops[rows])
            loss = F.cross_entropy(digit_logits, digit[rows]) + F.cross_entropy(colour_logits, colour[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(rows)
        scheduler.step()
        progress(f"training the classifier: epoch {epoch + 1} of {epochs}, loss {total / len(crops):.2f}")
    model.eval().requires_grad_(False)


def classifier_accuracy(
    model: CropClassifier, crops: Tensor, digit: Tensor, colour: Tensor, background: int
) -> dict[str, float]:
    """Return the share of right answers in 0..1: digit and colour where there is one, else that there is none.

    background: the label of crops that show no digit; where there are no such crops, nothing is said of them.
    """
    _, digit_logits, colour_logits = model(crops)
    empty = digit == background
    digit_right, colour_right = digit_logits.argmax(1) == digit, colour_logits.argmax(1) == colour
    answers = {"digit": digit_right[~empty], "colour": colour_right[~empty], "background": digit_right[empty]}
    return {name: round(right.float().mean().item(), 4) for name, right in answers.items() if len(right)}
