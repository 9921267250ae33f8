"""Normalization of channels-last maps on CPUs, accurate to rounding and about as fast as torch's own.

torch's kernels of batch and group normalization for that layout add up one value of a channel after the other in
float32: on 16 maps of 384 x 384 outputs are off by up to 1e-2 (batch) and 1e-4 (group), and those of batch
normalization depend on the number of threads. Here each row of a map is summed by itself, and the sums of rows in
float64. The operations are few and run over all maps at once, since each makes threads that share their cores wait.
Contiguous maps, other devices, compiled and exported networks use torch, which is exact there.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

_TYPES = (torch.float32, torch.bfloat16, torch.float16)


def inexact(x: Tensor) -> bool:
    """Return True if torch's own kernels would normalize these maps by inexact sums."""
    return (
        not torch.compiler.is_compiling()
        and x.device.type == "cpu"
        and x.dtype in _TYPES
        and x.dim() == 4
        and x.is_contiguous(memory_format=torch.channels_last)
        and not x.is_contiguous()
    )


def batch_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Normalize maps for which `inexact` holds over their batch.

    Returns:
        The maps, and the mean and the biased variance of each channel, (C,) float64 and without a gradient.
    """
    y, mean, var = _Normalize.apply(x, weight, bias, 0, eps)  # type: ignore[no-untyped-call]
    return y, mean[0], var[0]


def group_norm(x: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """Apply `torch.nn.functional.group_norm`, exact also for maps for which `inexact` holds."""
    if not inexact(x):
        return functional.group_norm(x, groups, weight, bias, eps)
    return _Normalize.apply(x, weight, bias, groups, eps)[0]  # type: ignore[no-any-return,no-untyped-call]


class _Normalize(torch.autograd.Function):
    """Function (x, weight, bias, groups, eps) -> y, mean, var; 0 groups normalize over the batch."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, groups: int, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Normalize by mean and variance, first of rows, then of values normalized together: Chan et al. 1983."""
        maps = x.permute(0, 2, 3, 1).float()
        means = maps.mean(dim=2, keepdim=True)
        y = torch.empty_like(x, dtype=torch.float32)
        out = y.permute(0, 2, 3, 1)  # holds the squares first: new memory costs more time than the computation
        variances = torch.ops.aten.mse_loss.out(maps, means, 0, out=out).mean(dim=2).double()
        rows = means[:, :, 0].double()
        mean = _shared(rows.mean(dim=1), groups)
        var = _shared((variances + (rows - mean.unsqueeze(1)).square_()).mean(dim=1), groups)
        inverse = (var + eps).rsqrt()
        scale = inverse if weight is None else inverse * weight
        shift = -mean * scale if bias is None else bias - mean * scale
        torch.addcmul(_wide(shift), maps, _wide(scale), out=out)
        ctx.save_for_backward(x, weight, bias, mean, inverse)
        ctx.groups, ctx.eps = groups, eps
        ctx.mark_non_differentiable(mean, var)
        return y.to(x.dtype), mean, var

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients, which are differentiable if grad mode is enabled."""
        x, weight, bias, mean, inverse = ctx.saved_tensors
        if torch.is_grad_enabled():
            return *_differentiable(gradients[0], (x, weight, bias), ctx.groups, ctx.eps), None, None
        g = gradients[0].contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1).float()
        maps = x.permute(0, 2, 3, 1).float()
        count = maps.shape[1] * maps.shape[2]
        total = g.sum(dim=2).sum(dim=1, dtype=torch.float64)
        out = torch.sub(maps, _wide(mean))
        product = out.mul_(g).sum(dim=2).sum(dim=1, dtype=torch.float64) * inverse
        scale = inverse if weight is None else inverse * weight
        slope = -inverse * _shared(scale * product, ctx.groups) / count
        shift = -_shared(scale * total, ctx.groups) / count - slope * mean
        found = torch.addcmul(_wide(shift), maps, _wide(slope), out=out).addcmul_(g, _wide(scale))
        found = found.to(x.dtype).permute(0, 3, 1, 2)
        weight_found = None if weight is None else product.sum(dim=0).to(weight)
        bias_found = None if bias is None else total.sum(dim=0).to(bias)
        return found, weight_found, bias_found, None, None


def _differentiable(g: Tensor, inputs: tuple[Tensor | None, ...], groups: int, eps: float) -> list[Tensor | None]:
    """Return the gradients as functions of g and the inputs, by torch's own formulas on contiguous maps."""
    x, weight, bias = inputs
    assert x is not None
    if groups:
        y = functional.group_norm(x.contiguous(), groups, weight, bias, eps)
    else:
        y = functional.batch_norm(x.contiguous(), None, None, weight, bias, True, 0.0, eps)
    wanted = [one for one in inputs if one is not None and one.requires_grad]
    found = iter(torch.autograd.grad(y, wanted, g, create_graph=True))
    return [next(found) if one is not None and one.requires_grad else None for one in inputs]


def _shared(values: Tensor, groups: int) -> Tensor:
    """Average (N, C) over the values normalized together: (1, C), or (N, C) by groups of each image's channels."""
    if not groups:
        return values.mean(dim=0, keepdim=True)
    N, C = values.shape
    return values.view(N, groups, -1).mean(dim=2).repeat_interleave(C // groups, dim=1)


def _wide(values: Tensor) -> Tensor:
    """Return (1, C) or (N, C) float64 values as (N, 1, 1, C) float32."""
    return values.float()[:, None, None]
