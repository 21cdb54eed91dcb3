"""Packing by an index gives torch's bits; the GRU in bfloat16 is nn.GRU, in less rounding than torch's own."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from uwml_lib.models.encoders import read_sequence
from uwml_lib.models.quick_gru import quick_gru, takes_quick

LENGTHS = torch.tensor([3, 7, 1, 7, 4])


def gru(bidirectional=True, **options):
    torch.manual_seed(0)
    return nn.GRU(5, 6, batch_first=True, bidirectional=bidirectional, **options)


def inputs(dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(5, 8, 5, generator=generator, dtype=dtype).requires_grad_()


def by_torch(rnn, x, lengths):
    states, last = rnn(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))
    return pad_packed_sequence(states, batch_first=True, total_length=x.shape[1])[0], last


def results(read, rnn, x, lengths=LENGTHS):
    """States, last states, and all gradients of a loss of both."""
    states, last = read(rnn, x, lengths)
    weights = [torch.randn(t.shape, generator=torch.Generator().manual_seed(2), dtype=x.dtype) for t in (states, last)]
    loss = (states * weights[0]).sum() + (last * weights[1]).sum()
    return [states, last, *torch.autograd.grad(loss, [x, *rnn.parameters()])]


@pytest.mark.parametrize("bidirectional", [True, False])
def test_float32_has_the_bits_of_torch(bidirectional):
    rnn, x = gru(bidirectional), inputs()
    for found, expected in zip(results(read_sequence, rnn, x), results(by_torch, rnn, x), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("bidirectional", [True, False])
def test_it_is_the_gru_of_torch(bidirectional):
    """In float64, so that nothing but rounding to the last bits is between them."""
    rnn, x = gru(bidirectional).double(), inputs(torch.float64)

    def quick(rnn, x, lengths):
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        states, last = quick_gru(rnn, packed, torch.float64)
        states, _ = pad_packed_sequence(packed._replace(data=states), batch_first=True, total_length=x.shape[1])
        return states, last.index_select(1, packed.unsorted_indices)

    for found, expected in zip(results(quick, rnn, x), results(by_torch, rnn, x), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_in_bfloat16_it_rounds_less_than_torch():
    rnn, x = gru(), inputs()

    def off(read):
        with torch.autocast("cpu", torch.bfloat16):
            found = results(read, rnn, x)
        assert [t.dtype for t in found] == [torch.float32] * len(found)
        return [((a - b).norm() / b.norm()).item() for a, b in zip(found, exact, strict=True)]

    exact = results(by_torch, rnn, x)
    ours, torchs = off(read_sequence), off(by_torch)
    assert 1e-4 < max(ours) < 1e-2
    assert sum(ours) < sum(torchs)


def test_where_it_is_taken():
    x = inputs()
    assert not takes_quick(gru(), x), "in float32 the numbers are torch's"
    with torch.autocast("cpu", torch.bfloat16):
        assert takes_quick(gru(), x)
        assert not takes_quick(gru(num_layers=2), x)
        assert not takes_quick(gru(bias=False), x)
        assert not takes_quick(gru(), x.double())
    with torch.autocast("cpu", torch.float16):
        assert not takes_quick(gru(), x)
