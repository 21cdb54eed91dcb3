"""The losses in open_clip's training: a CLIP, random and tiny, that learns to match made-up pictures and texts.

What it replaces: `ClipLoss(...)` becomes `ImageTextLoss(loss, ...)` with the same further arguments. Their command line
makes its loss in `create_loss`; this has it make one of the kit:

    from open_clip_train import main
    main.create_loss = lambda args: ImageTextLoss(LOSS, rank=args.rank, world_size=args.world_size)
    main.main(["--model", "ViT-B-32", "--train-data", ...])

What to watch:
- Scale: the loss gets cosines, and `logit_scale` stays as it is. For losses of scaled logits, `scaled=True`; with
  `InfoNCELoss(temperature=1)` this is `ClipLoss`.
- Ceiling: the polynomial loss skips positives from 1 - 1e-5 on, which rounding reaches in half precision;
  `positive_ceiling=None` does not.
- Coefficients: the released ones do not push negatives below 0.35, and pull those below 0.1. Those here pull positives
  and push negatives at every cosine; how well they train a real model was not measured.
- From scratch the hardest negatives alone may let the model collapse, so the first steps look at all.

`python examples/with_open_clip.py` (10 seconds)
"""

import math

import torch
from torch import Tensor

from uwml_lib.datasets.raw.region_models import import_vision
from uwml_lib.losses import PolynomialLoss
from uwml_lib.losses.open_clip import ImageTextLoss

import_vision("torchvision")  # also one that was built for another torch than is here

from open_clip import CLIP, CLIPTextCfg, CLIPVisionCfg  # noqa: E402

COLOURS, BATCH, WARMUP = 5, 64, 100
LOSS = PolynomialLoss(positive=(1, -2, 1), negative=(0.25, 0.5, 0.25), positive_ceiling=None)


def split() -> tuple[Tensor, Tensor]:
    """Four colours a picture, (n, 4): pictures to train on, and others to search."""
    everything = torch.cartesian_prod(*[torch.arange(COLOURS)] * 4)
    everything = everything[torch.randperm(len(everything), generator=torch.Generator().manual_seed(0))]
    return everything[:500], everything[500:]


def pictures(colours: Tensor) -> Tensor:
    """Four squares of a colour each, (n, 3, 16, 16), under noise."""
    palette = torch.randn(COLOURS, 3, generator=torch.Generator().manual_seed(1))
    squares = palette[colours].view(-1, 2, 2, 3).permute(0, 3, 1, 2)
    large = squares.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)
    return large + 0.1 * torch.randn_like(large)


def texts(colours: Tensor) -> Tensor:
    """A word for each colour and the end of the text, which is the largest number, (n, 5)."""
    return torch.nn.functional.pad(colours + 1, (0, 1), value=COLOURS + 1)


def untrained() -> CLIP:
    torch.manual_seed(0)
    vision = CLIPVisionCfg(layers=1, width=32, head_width=16, patch_size=8, image_size=16)
    text = CLIPTextCfg(context_length=5, vocab_size=COLOURS + 2, width=32, heads=2, layers=1)
    return CLIP(embed_dim=16, vision_cfg=vision, text_cfg=text, output_dict=True)


@torch.no_grad()
def recall(model: CLIP) -> float:
    """In percent, how often a picture never seen finds its text first among 125."""
    _, unseen = split()
    output = model.eval()(pictures(unseen), texts(unseen))
    found = (output["image_features"] @ output["text_features"].T).argmax(dim=1)
    return 100 * (found == torch.arange(len(found))).float().mean().item()


def main(steps: int = 250) -> tuple[float, float]:
    model, (seen, _) = untrained(), split()
    before = recall(model)
    criterion = ImageTextLoss(LOSS, rank=0, world_size=1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    model.train()
    for step in range(steps):
        criterion.loss = LOSS.dense() if step < WARMUP else LOSS
        colours = seen[torch.randperm(len(seen))[:BATCH]]
        losses = criterion(**model(pictures(colours), texts(colours)), output_dict=True)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
    after = recall(model)
    print(f"R@1 {before:.1f} before, {after:.1f} after")
    return before, after


if __name__ == "__main__":
    main()
