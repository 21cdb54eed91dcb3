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


def in_bfloat16(read, rnn, x):
    with torch.autocast("cpu", torch.bfloat16):
        return results(read, rnn, x)


def test_in_bfloat16_it_rounds_less_than_torch():
    rnn, x = gru(), inputs()

    def off(read):
        found = in_bfloat16(read, rnn, x)
        assert [t.dtype for t in found] == [torch.float32] * len(found)
        return [((a - b).norm() / b.norm()).item() for a, b in zip(found, exact, strict=True)]

    exact = results(by_torch, rnn, x)
    ours, torchs = off(read_sequence), off(by_torch)
    assert 1e-4 < max(ours) < 1e-2
    assert all(a < b for a, b in zip(ours, torchs, strict=True))


class Product(torch.autograd.Function):
    """a @ b.T, rounded to bfloat16 as are its factors and, in the backward pass, its gradient."""

    @staticmethod
    def forward(ctx, a, b):
        ctx.save_for_backward(a, b)
        return (a.bfloat16() @ b.bfloat16().T).float()

    @staticmethod
    def backward(ctx, grad):
        a, b = ctx.saved_tensors
        grad = grad.bfloat16()
        return (grad @ b.bfloat16()).float(), (grad.T @ a.bfloat16()).float()


def test_nothing_but_products_is_rounded():
    """The equation, for one sequence of three steps, by autograd; the same but for the order of a sum in the end."""
    rnn, x = gru(bidirectional=False), inputs()

    def equation(rnn, x, lengths):
        W, U, b, c = rnn.parameters()
        h, states = x.new_zeros(1, 6), []
        for step in Product.apply(x[0, :3], W).split(1):
            (r, z, n), (r_h, z_h, m) = (step + b).chunk(3, dim=1), (Product.apply(h, U) + c).chunk(3, dim=1)
            r, z = (r + r_h).sigmoid(), (z + z_h).sigmoid()
            n = (n + r * m).tanh()
            h = n + z * (h - n)
            states.append(h)
        return torch.stack(states, dim=1), h[None]

    expected = results(equation, rnn, x)
    found = in_bfloat16(lambda rnn, x, _: read_sequence(rnn, x[:1, :3], LENGTHS[:1]), rnn, x)
    for name, a, b in zip(("states", "last", "x", "W", "U", "b", "c"), found, expected, strict=True):
        # U's gradient is a sum of three rounded products there, and one product here.
        torch.testing.assert_close(
            a, b, rtol=0.01 if name == "U" else 1e-4, atol=0.003 if name == "U" else 1e-5, msg=name
        )


def test_two_backward_passes_are_the_same_and_a_second_derivative_is_refused():
    rnn, x = gru(), inputs()
    with torch.autocast("cpu", torch.bfloat16):
        total = read_sequence(rnn, x, LENGTHS)[0].sum()
    once, twice = (torch.autograd.grad(total, [x, *rnn.parameters()], retain_graph=True) for _ in range(2))
    assert all(map(torch.equal, once, twice))
    with pytest.raises(RuntimeError, match="differentiated once; train in float32"):
        torch.autograd.grad(total, x, create_graph=True)


def test_weights_are_found_by_their_names():
    rnn, x = gru(), inputs()
    before = in_bfloat16(read_sequence, rnn, x)[:2]
    bias = rnn.bias_ih_l0
    del rnn.bias_ih_l0
    rnn.bias_ih_l0 = bias  # now the last of the parameters
    assert [name for name, _ in rnn.named_parameters()][-1] == "bias_ih_l0"
    assert all(map(torch.equal, in_bfloat16(read_sequence, rnn, x)[:2], before))


def test_where_it_is_taken():
    class Mine(nn.GRU):
        pass

    x, rnn, hooked = inputs(), gru(), gru()
    hooked.register_forward_hook(lambda *_: None)
    assert not takes_quick(gru(), x), "in float32 the numbers are torch's"
    with torch.autocast("cpu", torch.bfloat16):
        assert takes_quick(gru(), x)
        assert not any(takes_quick(gru(**options), x) for options in ({"num_layers": 2}, {"bias": False}))
        assert not any(takes_quick(other, x) for other in (Mine(5, 6), nn.RNN(5, 6), hooked, gru().bfloat16()))
        assert not takes_quick(gru(), x.bfloat16())
        with torch.device("meta"):
            assert not takes_quick(nn.GRU(5, 6), x)
        assert torch.func.vmap(lambda one: takes_quick(rnn, one) + 0 * one.sum())(x).sum() == 0
    with torch.autocast("cpu", torch.float16):
        assert not takes_quick(gru(), x)


@pytest.mark.parametrize("lengths", [[3, 9, 1, 7, 4], [3, 7, 0, 7, 4], [3, 7, 1, 7], []])
def test_lengths_that_do_not_fit(lengths):
    found = f"{len(lengths)} of {min(lengths, default=0)} to {max(lengths, default=0)}"
    with pytest.raises(ValueError, match=f"lengths: found {found}, expected 5 of 1 to 8"):
        read_sequence(gru(), inputs(), torch.tensor(lengths, dtype=torch.int64))


def test_the_default_device_does_not_matter():
    rnn, x = gru(), inputs()
    before = read_sequence(rnn, x, LENGTHS)[0]
    with torch.device("meta"):
        assert torch.equal(read_sequence(rnn, x, LENGTHS)[0], before)
