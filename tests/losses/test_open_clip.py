"""The losses in place of open_clip's `ClipLoss`, against it, in one process and in two.

`python -m tests.losses.test_open_clip RANK SIZE FILE` is one of them. They try sentence-transformers' loss too.
"""

import sys
from functools import partial

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.functional import normalize

from tests.losses.oracles import naive_loss
from tests.losses.side_by_side import run_side_by_side
from tests.losses.test_sentence_transformers import BOTH, Given, MultipleNegativesRankingLoss
from uwml_lib.datasets.raw.region_models import import_vision
from uwml_lib.losses import LOSSES, FromWeights, InfoNCELoss, PolynomialLoss, SigmoidLoss, TripletLoss, streaming
from uwml_lib.losses.open_clip import ImageTextLoss
from uwml_lib.losses.sentence_transformers import SentencePairsLoss

losses = import_vision("open_clip.loss")
ClipLoss, SigLipLoss = losses.ClipLoss, losses.SigLipLoss


def made_up(rows=9, seed=0, dtype=torch.float64):
    """What a model returns: normalised features, a scale and a bias, all to be differentiated."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(rows, 6, generator=generator, dtype=dtype)
    texts = images + torch.randn(rows, 6, generator=generator, dtype=dtype)
    numbers = {"logit_scale": torch.tensor(12.0, dtype=dtype), "logit_bias": torch.tensor(-3.0, dtype=dtype)}
    output = {"image_features": normalize(images), "text_features": normalize(texts), **numbers}
    return {name: tensor.requires_grad_() for name, tensor in output.items()}


def value_and_gradients(criterion, output):
    value = criterion(**output)
    return value, torch.autograd.grad(value, list(output.values()))


@pytest.mark.parametrize("loss", [kind() for kind in LOSSES.values()], ids=LOSSES)
def test_naive_loop(loss):
    output = made_up()
    value = ImageTextLoss(loss)(**output)
    scores = (output["image_features"] @ output["text_features"].T).detach()
    assert value.item() == pytest.approx(naive_loss(loss, scores), rel=1e-9)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(InfoNCELoss(temperature=1), ClipLoss()), (SigmoidLoss(scale=1, bias=0), SigLipLoss())],
    ids=["ClipLoss", "SigLipLoss"],
)
def test_scaled_it_is_theirs(ours, theirs):
    output = made_up()
    torch.testing.assert_close(
        value_and_gradients(ImageTextLoss(ours, scaled=True), output), value_and_gradients(theirs, output)
    )


def test_with_a_temperature_it_is_theirs_at_that_scale():
    output = made_up()
    value, (images, texts, *of_scale) = value_and_gradients(ImageTextLoss(InfoNCELoss(temperature=1 / 12)), output)
    expected, (their_images, their_texts, *_) = value_and_gradients(ClipLoss(), output)
    torch.testing.assert_close((value, images, texts), (expected, their_images, their_texts))
    assert of_scale == [0, 0]


def test_scale_and_bias_may_be_numbers_or_have_a_dimension():
    output, criterion = made_up(), ImageTextLoss(InfoNCELoss(temperature=1), scaled=True)
    for number in (12.0, torch.full((1,), 12.0)):
        assert criterion(**output | {"logit_scale": number, "logit_bias": None}).item() == pytest.approx(
            ClipLoss()(**output).item()
        )
        ImageTextLoss(TripletLoss())(**output | {"logit_scale": number})


def test_output_dict():
    output, criterion = made_up(), ImageTextLoss(TripletLoss())
    assert criterion(**output, output_dict=True) == {"contrastive_loss": criterion(**output)}


def test_it_takes_what_their_training_hands_to_theirs():
    arguments = {"local_loss": True, "gather_with_grad": True, "cache_labels": True, "rank": 0, "world_size": 1}
    ImageTextLoss(TripletLoss(), **arguments, use_horovod=False)


@pytest.mark.parametrize("scaled", [False, True])
def test_under_autocast(scaled):
    """One tower's features in half precision, as of a model that does not normalise in float32."""
    output = made_up(dtype=torch.float32)
    half = output | {"image_features": output["image_features"].bfloat16()}
    criterion = ImageTextLoss(InfoNCELoss(temperature=1 if scaled else 1 / 12), scaled=scaled)
    with torch.autocast("cpu", torch.bfloat16):
        value, gradients = value_and_gradients(criterion, half)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(criterion(**output).item(), rel=2e-2)
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_a_loss_of_its_own():
    output, loss = made_up(), FromWeights(lambda p, n: 1 + n - p, lambda n: n.square(), margin=0.2)
    scores = output["image_features"] @ output["text_features"].T
    torch.testing.assert_close(ImageTextLoss(loss)(**output), loss(scores))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ImageTextLoss(ClipLoss()), "loss: found ClipLoss"),
        (lambda: ImageTextLoss(PolynomialLoss(), use_horovod=True), "use_horovod: found True"),
        (lambda: ImageTextLoss(PolynomialLoss(), world_size=2), "world_size: found 2, expected 1, for there is"),
        (lambda: ImageTextLoss(PolynomialLoss())(torch.ones(3, 2), torch.ones(4, 3), 1), "captions: found"),
        (lambda: ImageTextLoss(PolynomialLoss())(torch.ones(3, 2) / 0, torch.ones(3, 2), 1), "found NaN"),
    ],
)
def test_error(call, words):
    with pytest.raises(ValueError, match=words):
        call()


# ------------------------------------------------------------------------------------------------------- two processes


class Towers(nn.Module):
    """The least that is a model of images and texts, with open_clip's output."""

    def __init__(self):
        super().__init__()
        self.images, self.texts = nn.Linear(6, 4).double(), nn.Linear(6, 4).double()
        self.logit_scale = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

    def forward(self, images, texts):
        features = {"image_features": normalize(self.images(images)), "text_features": normalize(self.texts(texts))}
        return features | {"logit_scale": self.logit_scale.exp()}


def train(criterion, rank, size):
    """The losses of two steps of data-parallel training, their means over processes, and the parameters after them."""
    torch.manual_seed(0)
    model, losses = nn.parallel.DistributedDataParallel(Towers()), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(2):
        batch = made_up(4 * size, seed=step)
        own = slice(4 * rank, 4 * rank + 4)
        optimizer.zero_grad()
        value = criterion(**model(batch["image_features"][own].detach(), batch["text_features"][own].detach()))
        value.backward()
        optimizer.step()
        losses.append(mean(value.detach(), size))
    return losses, [parameter.detach() for parameter in model.parameters()]


def mean(value, size):
    dist.all_reduce(value)
    return value / size


def main(rank: int, size: int, file: str) -> None:
    """Be one of the processes."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=size)
    streaming.ROWS = 3
    arguments = {"local_loss": True, "gather_with_grad": True, "rank": rank, "world_size": size}
    ours = train(ImageTextLoss(InfoNCELoss(temperature=1), scaled=True, **arguments), rank, size)
    theirs = train(ClipLoss(**arguments), rank, size)
    torch.testing.assert_close(ours, theirs)
    frozen_scale = train(ImageTextLoss(PolynomialLoss(), **arguments), rank, size)  # two steps: DDP is content
    assert frozen_scale[1][0] == 2

    features = [{"x": column.detach().requires_grad_()} for column in made_up(8, seed=rank).values() if column.ndim]
    features.append({"x": features[1]["x"].detach().flip(0).requires_grad_()})  # hard negatives
    inputs, found = [column["x"] for column in features], []
    for criterion in (
        SentencePairsLoss(Given(), InfoNCELoss(temperature=1 / 20), gather_across_devices=True),
        partial(MultipleNegativesRankingLoss(Given(), gather_across_devices=True, **BOTH), labels=None),
    ):
        value = criterion(features)
        gradients = torch.autograd.grad(value, inputs)
        found.append((mean(value.detach(), size), gradients))
    torch.testing.assert_close(*found)
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_are_as_theirs(tmp_path):
    run_side_by_side("tests.losses.test_open_clip", 2, tmp_path)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
