"""A loss from embeddings over several processes is that of one process with the pairs of all.

`python -m tests.losses.test_ring RANK SIZE FILE` is one of them.
"""

import sys

import pytest
import torch
import torch.distributed as dist
from torch.utils.flop_counter import FlopCounterMode

from tests.losses.side_by_side import run_side_by_side
from tests.losses.test_losses import FORMS, with_margin
from tests.losses.test_streaming import GIVEN, streamed
from uwml_lib.losses import InfoNCELoss, PolynomialLoss, ScoreMatrixLoss, TripletSemihardLoss, streaming
from uwml_lib.losses.ring import Ring

D = 6


def everything(processes: int, n: int, m: int, seed: int) -> tuple[list[tuple], tuple]:
    """What each process has, (images, captions, ids and negatives), and the same of all of them together, whose
    captions are first the positives of all, then the further ones.
    """
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(processes, n, D, generator=generator, dtype=torch.float64)
    captions = torch.randn(processes, m, D, generator=generator, dtype=torch.float64)
    captions[:, :n] += images
    image_ids = torch.arange(processes * n).view(processes, n) // 2 % (processes + 3)
    caption_ids = torch.randint(0, 4 * m, (processes, m), generator=generator)
    negatives = torch.rand(processes, n, processes * m, generator=generator) < 0.9
    own = [
        (images[r], captions[r], {"image_ids": image_ids[r], "caption_ids": caption_ids[r], "negatives": negatives[r]})
        for r in range(processes)
    ]

    def in_order(x: torch.Tensor) -> torch.Tensor:
        """(processes, m, ...) as the captions of all."""
        return torch.cat([x[:, :n].flatten(0, 1), x[:, n:].flatten(0, 1)])

    of_pairs = negatives.flatten(0, 1).T.unflatten(0, (processes, m))
    who = {
        "image_ids": image_ids.flatten(), "caption_ids": in_order(caption_ids), "negatives": in_order(of_pairs).T
    }  # fmt: skip
    return own, (images.flatten(0, 1), in_order(captions), who)


def check(group: dist.ProcessGroup, loss: ScoreMatrixLoss, n: int, m: int, *names: str) -> None:
    """Compare with one process, which knows of who is no negative what `names` say."""
    processes, rank = dist.get_world_size(group), dist.get_rank(group)
    own, everybody = everything(processes, n, m, seed=n + m)
    only = lambda who: {name: who[name] for name in names}  # noqa: E731
    expected = streamed(loss, *everybody[:2], **only(everybody[2]))
    found = streamed(loss, *own[rank][:2], **only(own[rank][2]), process_group=group)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found[3], expected[3], rtol=1e-9, atol=1e-9, equal_nan=True)
    of_images, of_captions = expected[1].view(processes, n, D)[rank], expected[2]
    first, further = of_captions[: processes * n].view(processes, n, D), of_captions[processes * n :]
    of_captions = torch.cat([first[rank], further.view(processes, m - n, D)[rank]])
    torch.testing.assert_close(found[1], processes * of_images, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found[2], processes * of_captions, rtol=1e-9, atol=1e-9)


def costs(processes: int, n: int, hardest: bool) -> dict[str, float]:
    """Bytes that a process sends in a step of n pairs each of D float32 numbers, and multiplications with additions.

    There: the captions P - 1 times; P times the positive's score, what is gathered, and the hardest for statistics; of
    hardest negatives also their places, eight bytes, and whether they are tied, one; of sums how many they are. Back:
    the captions and what is needed of them P - 1 times, their gradients P times. One product of all pairs, or four.
    """
    there = (processes - 1) * 4 * n * D + processes * n * (3 * 4 + (9 if hardest else 4))
    back = (processes - 1) * n * (4 * D + (4 + 8 if hardest else 3 * 4))
    back += processes * n * (4 * D + (0 if hardest else 4))
    return {"bytes": there + back, "products": 2 * n * processes * n * D * (1 if hardest else 4)}


def check_costs(group: dist.ProcessGroup, loss: ScoreMatrixLoss, hardest: bool) -> None:
    processes, n, sent = dist.get_world_size(group), 32, []
    images, captions = (torch.randn(n, D, requires_grad=True) for _ in range(2))
    pass_on = Ring._pass_on

    def counted(ring: Ring, tensors: list[torch.Tensor]) -> tuple:
        sent.extend(tensor.nbytes for tensor in tensors)
        return pass_on(ring, tensors)

    Ring._pass_on = counted
    with FlopCounterMode(display=False) as counter:
        loss.from_embeddings(images, captions, process_group=group).backward()
    Ring._pass_on = pass_on
    assert {"bytes": sum(sent), "products": counter.get_total_flops()} == costs(processes, n, hardest)


def main(rank: int, size: int, file: str) -> None:
    """Be one of the processes; two of three are a group of their own besides."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=size)
    pair = [0, size - 1]
    groups = [dist.group.WORLD, dist.new_group(pair)]
    streaming.ROWS = 4
    for group in groups if rank in pair else groups[:1]:
        for form in (FORMS | GIVEN).values():
            for loss in (form(reduction="mean"), with_margin(form, 0.5, reduction="sum").dense()):
                check(group, loss, 10, 10, "image_ids")
        for loss in (PolynomialLoss(), TripletSemihardLoss(), InfoNCELoss()):
            check(group, loss, 7, 7)
            check(group, loss, 7, 9)
            check(group, loss, 6, 9, "image_ids")
            check(group, loss, 6, 9, "image_ids", "caption_ids", "negatives")
        check_costs(group, PolynomialLoss(), hardest=True)
        check_costs(group, InfoNCELoss(), hardest=False)
    try:
        PolynomialLoss().from_embeddings(*torch.ones(2, 2 + rank, D), process_group=dist.group.WORLD)
        raise AssertionError("unequal shares were taken")
    except ValueError as error:
        assert str(error).startswith("images, captions: found (N, M, d, bytes of a number, whether "), error
        assert "of [[2, 2, 6, 4, 0, 0, 0], [3, 3, 6, 4, 0, 0, 0]" in str(error), error
    dist.destroy_process_group()


@pytest.mark.slow
def test_three_processes_and_two_of_them_are_as_one(tmp_path):
    run_side_by_side("tests.losses.test_ring", 3, tmp_path)


def test_alone_nothing_is_sent():
    ring, x = Ring(), torch.arange(3.0)
    assert (ring.size, ring.rank) == (1, 0)
    assert ring.gather(x) is x
    assert ring.total(x) is x
    assert [(owner, len(here)) for owner, here in ring.rounds([x], [x])] == [(0, 2)]


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
