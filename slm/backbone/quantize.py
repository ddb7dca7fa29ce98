"""Weights in 8 or 16 bits, for where the time goes into reading them: a step at a time on a CPU.

    int8     each output channel's weights are rounded to 127 steps either side of zero and multiplied with inputs in bfloat16, for which
             torch has a kernel that unpacks weights as it reads them; in float32 that kernel is slower than the product it replaces.
             Each weight is off by at most half a step, 0.7 % of the standard deviation of normal weights in the root mean square at a
             width of 512, and each input and output by the 0.4 % at most to which bfloat16 rounds.
    float16  each weight is rounded, by at most 0.05 % of it, and unpacked to float32 as it is read; nothing else is (FBGEMM, on x86).

D width   O width of the output
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slm.errors import SlmError

ROWS = 16  # a product with more rows is faster with the weights unpacked
BLOCK = 64  # inputs the kernel takes at a time; it reads beyond the end of a width that is no multiple


class Int8Linear(nn.Module):
    """x [...,D] -> [...,O] in x's dtype, as the nn.Linear it is made from; it learns nothing."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        wide = layer.weight.detach().float()
        scale = (wide.abs().amax(1).clamp(min=1e-30) / 127).to(torch.bfloat16)  # [O], as the kernel reads it
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.register_buffer("weight", (wide / scale.float()[:, None]).round().to(torch.int8))
        self.register_buffer("scale", scale)
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach().clone(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.numel() // self.in_features
        if rows > ROWS or self.in_features % BLOCK or x.device.type != "cpu":
            y = F.linear(x, self.weight.to(x.dtype)) * self.scale.to(x.dtype)
        else:
            near = x.reshape(rows, self.in_features).to(torch.bfloat16).contiguous()
            y = torch._weight_int8pack_mm(near, self.weight, self.scale).view(*x.shape[:-1], -1).to(x.dtype)
        return y if self.bias is None else y + self.bias.to(y.dtype)


class Float16Linear(nn.Module):
    """x [...,D] -> [...,O] in x's dtype, as the nn.Linear it is made from; it learns nothing, and its weights are not in `state_dict`.

    SlmError: this torch has no FBGEMM, or a weight is beyond float16.
    """

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        if "fbgemm" not in torch.backends.quantized.supported_engines:
            raise SlmError("weights in float16 need FBGEMM, which this build of torch lacks; use int8 or bfloat16.")
        wide = layer.weight.detach().float()
        if wide.abs().max() > torch.finfo(torch.float16).max:
            raise SlmError(f"a weight of {wide.abs().max():.3g} is beyond float16; use int8 or bfloat16.")
        self.in_features, self.out_features = layer.in_features, layer.out_features
        bias = None if layer.bias is None else layer.bias.detach().float()
        self.packed = torch.ops.quantized.linear_prepack_fp16(wide.contiguous(), bias)

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.quantized.linear_dynamic_fp16(x.float(), self.packed).to(x.dtype)


def int8(module: nn.Module) -> nn.Module:
    """`module` itself, all its linear layers in 8 bits; for inference only."""
    return _each(module, Int8Linear)


def float16(module: nn.Module) -> nn.Module:
    """`module` itself, the weights of all its linear layers in float16; for inference only."""
    return _each(module, Float16Linear)


def _each(module: nn.Module, packed: Callable[[nn.Linear], nn.Module]) -> nn.Module:
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, packed(child))
        else:
            _each(child, packed)
    return module
