"""Any loss on a score matrix in place of open_clip's `ClipLoss`; the library itself is not needed here."""

import torch
import torch.distributed as dist
from torch import Tensor, nn

from uwml_lib.losses.base import ScoreMatrixLoss, check_loss


class ImageTextLoss(nn.Module):
    """A loss on a score matrix with the arguments and the output of open_clip's `ClipLoss`.

    By default the loss gets the products of the features, cosines as open_clip's models normalise them, and the
    gradient of `logit_scale` and `logit_bias` is zero: they stay as they are, and data-parallel training needs no
    `find_unused_parameters`. With `scaled` it gets logit_scale * cosine + logit_bias, and both are learnt. Thus
    `ImageTextLoss(InfoNCELoss(temperature=1), scaled=True)` is `ClipLoss`, and
    `ImageTextLoss(SigmoidLoss(scale=1, bias=0), scaled=True)` is `SigLipLoss`. A polynomial takes cosines; its
    coefficients must suit where the model's cosines lie, and `positive_ceiling=None` keeps it from skipping a positive
    that rounding takes to 1.

    With several processes the loss is that of all pairs, the same in all of them, and the mean over processes that
    data-parallel training takes of the gradients is its gradient. This is what `ClipLoss` does with `gather_with_grad`,
    but texts travel from one process to the next, and none holds more scores than alone.

    Parameters
        loss: any loss of this kit.
        scaled: hand it scaled logits, not cosines.
        world_size: how many processes torch.distributed has, or 1 for a loss of each process's own pairs.
        local_loss, gather_with_grad, cache_labels, rank: taken as `ClipLoss` takes them, and without effect.
        use_horovod: must be False.

    Raises ValueError for a loss that is none of this kit's kind, other processes than torch's, and horovod.
    """

    def __init__(
        self,
        loss: ScoreMatrixLoss,
        *,
        scaled: bool = False,
        local_loss: bool = False,
        gather_with_grad: bool = False,
        cache_labels: bool = False,
        rank: int = 0,
        world_size: int = 1,
        use_horovod: bool = False,
    ) -> None:
        super().__init__()
        if use_horovod:
            raise ValueError("use_horovod: found True, expected False: only processes of torch.distributed are joined")
        there = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
        if world_size not in (1, there):
            expected = f"1 or the {there} of torch.distributed" if there > 1 else "1, for there is this process alone"
            raise ValueError(f"world_size: found {world_size!r}, expected {expected}")
        self.loss, self.scaled, self.world_size = check_loss(loss), scaled, world_size

    def forward(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: Tensor | float,
        logit_bias: Tensor | float | None = None,
        output_dict: bool = False,
    ) -> Tensor | dict[str, Tensor]:
        """Return the loss, a scalar of the wider of the features' dtypes, or {"contrastive_loss": loss}.

        image_features, text_features: (N, d), normalised, a pair in each row. logit_scale, logit_bias: of one number.
        Raises ValueError as `ScoreMatrixLoss.from_embeddings` does, where texts are called captions.
        """
        images, texts = image_features, text_features
        if self.scaled:
            images = logit_scale * images
            if logit_bias is not None:  # one number more in each, whose product is the bias
                one = torch.ones_like(texts[:, :1])
                images, texts = torch.cat([images, logit_bias * one], dim=1), torch.cat([texts, one], dim=1)
        dtype = torch.promote_types(images.dtype, texts.dtype)
        group = dist.group.WORLD if self.world_size > 1 else None
        value = self.loss.from_embeddings(images.to(dtype), texts.to(dtype), similarity="dot", process_group=group)
        for unused in () if self.scaled else (logit_scale, logit_bias):
            if isinstance(unused, Tensor):
                value = value + (0 * unused.sum()).to(dtype)
        return {"contrastive_loss": value} if output_dict else value
