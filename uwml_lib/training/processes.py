"""Several processes as one, on torch's own engine: the loss sees the global batch, and every process the same loss.

Each of P processes embeds its share of the batch of N pairs, N / P images and captions. If each is one vector, the loss
takes these, and captions go round (`losses.ring`): nobody holds the N x N scores. If not, the captions' embeddings are
gathered, so that a process scores its N / P images against all N captions; the rows of scores are gathered to N x N.
Both gathers pass gradients on: what a process gets back for its own part is the sum over all processes, each of which
has differentiated the whole loss. So gradients are P times too large, by either way, and the average over processes
that torch's data-parallel wrapper takes makes them those of a single process with the same global batch.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from accelerate import PartialState
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from torch.nn import functional as F

from uwml_lib.config import ExperimentConfig
from uwml_lib.models import Matcher
from uwml_lib.runs.scoring import device_of
from uwml_lib.support.errors import UWMLError


def find_processes(config: ExperimentConfig) -> PartialState:
    """Join the other processes, if torchrun has started several.

    accelerate's state of device and precision would be that of a process's first run for all that follow; its only way
    to forget them is private.
    """
    AcceleratorState._reset_state(reset_partial_state=True)
    # Pass cpu=True even on a machine without an accelerator: accelerate joins the other processes only then.
    return PartialState(cpu=device_of(config) == "cpu")


def process_count() -> int:
    """How many processes work together; 1 before they have found each other."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def launched() -> int:
    """How many processes torchrun has started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def launch(processes: int, arguments: Sequence[str]) -> None:
    """Run `uwml ARGUMENTS` in several processes on this machine; raises UWMLError if one of them fails or is killed."""
    settings = LaunchConfig(1, 1, processes, run_id=str(os.getpid()), rdzv_backend="c10d", rdzv_endpoint="localhost:0")
    settings.max_restarts = 0  # a training goes on when it is asked to
    try:
        elastic_launch(settings, sys.executable)("-m", "uwml_lib.cli", *arguments)
    except SignalException as error:
        raise UWMLError(f"stopped by signal {int(error.sigval)}; the same command goes on") from None
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        how = "failed, as said above; the others were stopped"
        if failure.exitcode < 0:
            how = f"was killed by signal {-failure.exitcode}, and the others were stopped; the same command goes on "
            how += "after the last step whose state was kept"
        raise UWMLError(f"process {rank} of {processes} {how}") from None


class ScoresOfAll(nn.Module):
    """A model whose forward scores the images of all processes against all their captions; alone, its own images. If
    `by_vectors`, it returns this process's embeddings instead, of images and of captions, for the loss to take.

    torch's data-parallel wrapper, which gets this and not the model, averages the gradients of what its call computes.
    """

    def __init__(self, model: Matcher) -> None:
        super().__init__()
        self.model = model
        self.by_vectors = process_count() > 1 and model.of_vectors

    def forward(self, features: Tensor, tokens: Tensor, lengths: Tensor, counts: Tensor | None = None) -> Any:
        """Map this process's share of a batch of N pairs to the scores of all, (N, N), float32."""
        images, captions = self.model.embed_images(features, counts), self.model.embed_captions(tokens, lengths)
        if self.by_vectors:
            return images.float(), captions.float()
        return gather(self.model.scores(images, *gather_captions(captions, lengths)).float())


def gather(x: Tensor) -> Tensor:
    """Put the processes' tensors, of one shape, one after the other in their first dimension; gradients pass."""
    return x if process_count() == 1 else Gather.apply(x)


class Gather(torch.autograd.Function):
    """All processes' parts in one; a part's gradient is the sum of what every process has for it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.size = len(x)
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(process_count())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        grad = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad)
        return grad[dist.get_rank() * ctx.size :][: ctx.size]


def gather_captions(captions: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Gather embedded captions, (n, dim) or (n, words, dim), padded to the longest of all, and lengths (n,)."""
    if process_count() == 1:
        return captions, lengths
    if captions.ndim == 3:
        words = torch.tensor(captions.shape[1], device=captions.device)
        dist.all_reduce(words, dist.ReduceOp.MAX)
        captions = F.pad(captions, (0, 0, 0, int(words) - captions.shape[1]))
    return gather(captions), gather(lengths.to(captions.device)).to(lengths.device)


def die_with_parent() -> None:
    """End a training when its parent ends, however that was, and by Ctrl-C without a traceback.

    It stands here and not with the studies, so that a training's process need not import what those need.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)

    def wait() -> None:
        multiprocessing.parent_process().join()  # type: ignore[union-attr]  # only ever called in a child
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
