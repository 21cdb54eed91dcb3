"""A GRU in bfloat16 on a CPU: the numbers of `nn.GRU`, quicker, its gradients by hand.

With the states h of the step before and x W + b made for all steps at once,

    r = sigmoid(x W_r + b_r + h U_r + c_r)    z = sigmoid(x W_z + b_z + h U_z + c_z)    m = h U_n + c_n
    n = tanh(x W_n + b_n + r m)               h' = n + z (h - n)

torch cuts x W + b into steps, and its backward pass makes a gradient of the whole for each of them; and it adds to the
weights' gradients at every step, where one product over all steps does. Products have factors and results in bfloat16,
all else is float32.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence


def takes_quick(rnn: nn.GRU, x: Tensor) -> bool:
    """Say whether a GRU is computed here: within an autocast to bfloat16 on a CPU, where all is float32 and it is one
    layer with bias that nobody changed, for a subclass, a hook or weights of another type; elsewhere torch does it.
    """
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return False
    in_bfloat16 = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    if not in_bfloat16 or type(rnn) is not nn.GRU or rnn.num_layers > 1 or not rnn.bias:
        return False
    hooked = rnn._forward_hooks or rnn._forward_pre_hooks
    return not hooked and {(t.device.type, t.dtype) for t in (x, *rnn.parameters())} == {("cpu", torch.float32)}


def quick_gru(rnn: nn.GRU, packed: PackedSequence, products: torch.dtype = torch.bfloat16) -> tuple[Tensor, Tensor]:
    """Return what `rnn(packed)` does: the states of every step, packed, (all, directions x hidden), and the last ones,
    (directions, n, hidden). products: dtype of the factors of matrix products.
    """
    sizes = packed.batch_sizes.tolist()
    ways = [
        PackedGRU.apply(packed.data, *weights, (sizes, bool(backwards), products))
        for backwards, weights in enumerate(rnn.all_weights)
    ]
    states, last = zip(*ways, strict=True)
    return torch.cat(states, dim=1), torch.stack(last)


class PackedGRU(torch.autograd.Function):
    """One direction of a GRU over packed sequences; the letters are those at the top of this file."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, W: Tensor, U: Tensor, b: Tensor, c: Tensor, options: tuple
    ) -> tuple[Tensor, Tensor]:
        """Map x (all, dim) to the states after every step, (all, hidden), and after the last, (n, hidden)."""
        sizes, backwards, products = options
        hidden = U.shape[1]
        with torch.autocast("cpu", enabled=False):
            x, W, U = x.to(products), W.to(products), U.to(products)
            gates = F.linear(x, W).to(b.dtype).add_(b)
            gates[:, : 2 * hidden] += c[: 2 * hidden]
            before, m, states = b.new_empty(3, len(x), hidden)
            h = b.new_zeros(sizes[0], hidden)
            steps = list(zip(*(part.split(sizes) for part in (gates, before, m, states)), strict=True))
            for gate, h_before, m_here, state in reversed(steps) if backwards else steps:
                here = h[: len(gate)]
                h_before.copy_(here)
                by_h = here.to(products) @ U.T
                rz, n = gate[:, : 2 * hidden], gate[:, 2 * hidden :]
                rz.add_(by_h[:, : 2 * hidden]).sigmoid_()
                torch.add(by_h[:, 2 * hidden :], c[2 * hidden :], out=m_here)
                n.addcmul_(rz[:, :hidden], m_here).tanh_()
                here.copy_(torch.lerp(n, here, rz[:, hidden:], out=state))
        ctx.save_for_backward(x, W, U, gates, before, m)
        ctx.options = options
        return states, h

    @staticmethod
    def backward(ctx: Any, grad_states: Tensor, grad_last: Tensor) -> tuple[Tensor | None, ...]:
        """Map the gradients of both results to those of x and of the weights."""
        if torch.is_grad_enabled():  # a gradient of this gradient would be without what came by the states
            raise RuntimeError("a GRU in bfloat16 on a CPU can be differentiated once; train in float32 for more")
        x, W, U, gates, before, m = ctx.saved_tensors
        sizes, backwards, products = ctx.options
        r, z, n = gates.chunk(3, dim=1)
        hidden = U.shape[1]
        with torch.autocast("cpu", enabled=False):
            # What a step's gradient dh is multiplied by; the arguments of sigmoid and tanh have gradients
            # dn = dh (1 - z) (1 - n^2),  dz = dh (h - n) z (1 - z),  dr = dn m r (1 - r);  that of m is dn r.
            by_n, by_z, by_r = (1 - z).mul_(1 - n * n), (before - n).mul_(z).mul_(1 - z), (r - r * r).mul_(m)
            grad_n, grad_of_h = torch.empty_like(m), torch.empty_like(gates)
            dh = grad_last.clone()
            steps = list(
                zip(*(t.split(sizes) for t in (grad_states, by_n, by_z, by_r, r, z, grad_n, grad_of_h)), strict=True)
            )
            for grad, to_n, to_z, to_r, r_here, z_here, dn, d in steps if backwards else reversed(steps):
                here = dh[: len(grad)].add_(grad)
                torch.mul(here, to_n, out=dn)
                torch.mul(dn, to_r, out=d[:, :hidden])
                torch.mul(here, to_z, out=d[:, hidden : 2 * hidden])
                torch.mul(dn, r_here, out=d[:, 2 * hidden :])
                here.mul_(z_here).add_(d.to(products) @ U)
            grad_U, grad_c = grad_of_h.to(products).T @ before.to(products), grad_of_h.sum(dim=0)
            grad_of_x = torch.cat([grad_of_h[:, : 2 * hidden], grad_n], dim=1)  # of x W + b, as that was of h U + c
            factor = grad_of_x.to(products)
            grad_x, grad_W, grad_b = factor @ W, factor.T @ x, grad_of_x.sum(dim=0)
        return grad_x.to(m.dtype), grad_W.to(m.dtype), grad_U.to(m.dtype), grad_b, grad_c, None
