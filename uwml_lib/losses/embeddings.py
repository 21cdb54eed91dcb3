"""What `ScoreMatrixLoss.from_embeddings` takes."""

import torch
from torch import Tensor

from uwml_lib.losses.base import ScoreMatrixLoss, check_choice
from uwml_lib.losses.ring import Ring


def check_embeddings(images: Tensor, captions: Tensor) -> None:
    """Raise ValueError unless these are images (N, d) and captions (M, d) of one kind, M >= N >= 1."""
    for name, each in (("images", images), ("captions", captions)):
        if not isinstance(each, Tensor) or not each.is_floating_point() or each.ndim != 2 or not len(each):
            found = f"{each.dtype} {tuple(each.shape)}" if isinstance(each, Tensor) else type(each).__name__
            raise ValueError(f"{name}: found {found}, expected a tensor of floats, a row of embedding each")
    like = (images.dtype, images.device, images.shape[1])
    if (captions.dtype, captions.device, captions.shape[1]) != like or len(images) > len(captions):
        found = f"{captions.dtype} {tuple(captions.shape)} on {captions.device}"
        expected = f"{images.dtype} (M, {images.shape[1]}) on {images.device} with M >= N = {len(images)}"
        raise ValueError(f"captions: found {found}, expected {expected}, as the images")


def check_sums(loss: ScoreMatrixLoss) -> None:
    """Raise ValueError for a loss whose sums over pairs cannot be streamed."""
    name = type(loss).__name__
    check_choice(f"{name}.gathers", loss.gathers or loss.negatives, ("all", "average", "log_sum_exp"))
    if any(parameter.requires_grad for parameter in loss.parameters()):
        expected = "none that are learnt by a loss of all negatives: scale the embeddings, or call the loss on scores"
        raise ValueError(f"{name}: found parameters that want a gradient, expected {expected}")


def check_shares(ring: Ring, images: Tensor, captions: Tensor, *given: bool) -> None:
    """Raise ValueError unless all processes have the same; not on an accelerator, where the host would wait for it."""
    if ring.size > 1 and images.device.type == "cpu":
        own = torch.tensor([[len(images), len(captions), images.shape[1], images.itemsize, *given]])
        if len(found := ring.gather(own).unique(dim=0)) > 1:
            what = "(N, M, d, bytes of a number, whether ids of images, of captions, and negatives are given)"
            raise ValueError(f"images, captions: found {what} of {found.tolist()}, expected one of all processes")
