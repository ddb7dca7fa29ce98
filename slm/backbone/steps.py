"""A backbone's step with everything looked up beforehand, for saying an id at a time.

    model = columns(model).eval()
    step, state = steps(model.backbone), model.backbone.start(1)
    hidden = step(x, state)  # x, hidden [B,D]; state is written in place

The products of a single row take as long as reading their weights, and what torch does around each of them is small but much: a
quarter of the time at a width of 512. Here no module is called, no mask built, nothing derived from weights derived twice.

B batch   D width   O width of an output   H heads   J key/value heads   E head width   P width and N state width of Mamba-2's heads
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slm.backbone.block import Block
from slm.backbone.mamba2 import Mamba2, Mixer
from slm.backbone.ssd import ssd_advance
from slm.backbone.transformer import Transformer
from slm.nn.norm import RMSNorm

Step = Callable[[Tensor, Any], Tensor]


def steps(backbone: nn.Module) -> Step | None:
    """`backbone.step` itself where there is no faster way: beside a Llama's or Mamba-2's own layers, and on a GPU.

    None for a backbone that takes no step in place, or is being trained: nothing is dropped, and what is changed in the backbone
    afterwards is not seen.
    """
    if backbone.training or not isinstance(backbone, (Mamba2, Transformer)):
        return None
    on_cpu = next(backbone.parameters()).device.type == "cpu"
    if on_cpu and isinstance(backbone, Mamba2):
        return _mamba2(backbone)
    if on_cpu and isinstance(backbone, Transformer) and _plain(backbone.config):
        return _llama(backbone)
    return backbone.step


def columns(module: nn.Module) -> nn.Module:
    """`module` itself, float32 weights [O,D] with no fewer outputs than inputs laid out column by column; for inference.

    Their names and values stay. Sums over D of one row run along O instead, which the product of a matrix and a vector reads from
    memory at 13 to 27 GB/s rather than 10 to 17 (one thread of torch's MKL on a Zen 4 processor; with fewer outputs it loses there).
    """
    for layer in module.modules():
        if type(layer) is nn.Linear and layer.weight.dtype == torch.float32 and layer.in_features <= layer.out_features:
            layer.weight.data = layer.weight.data.t().contiguous().t()
    return module


def product(layer: nn.Module) -> Callable[[Tensor], Tensor]:
    """x [B,D] -> [B,O] of a linear layer, or the layer itself if it is another kind."""
    if type(layer) is not nn.Linear:
        return layer
    weight = layer.weight.detach().t()
    return partial(torch.mm, mat2=weight) if layer.bias is None else partial(torch.addmm, layer.bias.detach(), mat2=weight)


def normed(norm: RMSNorm) -> Callable[[Tensor], Tensor]:
    """x [B,D] -> [B,D]. Of single rows F.rms_norm takes seven kernels; here are four, the root of a sum with eps being a hypotenuse."""
    if not isinstance(norm, RMSNorm):
        return norm
    weight, width = norm.weight.detach(), len(norm.weight)
    scale, least = weight * math.sqrt(width), torch.tensor(math.sqrt(norm.eps * width), dtype=weight.dtype)

    def step(x: Tensor) -> Tensor:
        if x.dtype != weight.dtype or x.dtype not in (torch.float32, torch.float64):
            return F.rms_norm(x, weight.shape, weight.to(x.dtype), norm.eps)
        return (x / torch.hypot(torch.linalg.vector_norm(x, dim=-1, keepdim=True), least)).mul_(scale)

    return step


def _plain(config: Transformer.Config) -> bool:
    return config.form == "llama" and config.positions in ("rope", "none") and not (config.window or config.adaptive or config.memory)


def _llama(backbone: Transformer) -> Step:
    layers, last, positions = [_llama_layer(layer) for layer in backbone.layers], normed(backbone.norm), backbone.positions

    @torch.no_grad()
    def step(x: Tensor, state: Any, at: Tensor | None = None) -> Tensor:
        first, even = state.extent()
        if not even or (at is not None and positions.rope is None):
            return backbone.step(x, state, at=at)
        state.reserve(first + 1)
        turn = None
        if at is not None:
            turn = [table[:, 0].to(x.dtype) for table in positions.rope.anywhere(at[:, None])]
        elif positions.rope is not None:
            turn = [table[0].to(x.dtype) for table in positions.rope.at(first, 1, x)]
        for layer, keys, values in zip(layers, state.keys, state.values):
            x = layer(x, turn, keys, values, first)
        state.length += 1
        return last(x)

    return step


def _llama_layer(block: Block) -> Callable[..., Tensor]:
    """One layer as a function of x [B,D], cos, sin [(B,)1,E] of where it stands, its keys and values [B,J,capacity,E] and the place."""
    attention, norm1, norm2 = block.attention, normed(block.norm1), normed(block.norm2)
    qkv, out, gate_up, down = (product(p) for p in (attention.qkv, attention.out, block.gate_up, block.down))
    heads, kv_heads, width = attention.heads, attention.kv_heads, attention.head_dim
    q_norm, k_norm = (None, None) if attention.q_norm is None else (normed(attention.q_norm), normed(attention.k_norm))

    def layer(x: Tensor, turn: list[Tensor] | None, keys: Tensor, values: Tensor, first: int) -> Tensor:
        batch = len(x)
        turned, v = qkv(norm1(x)).view(batch, -1, width).split((heads + kv_heads, kv_heads), 1)
        if q_norm is not None:
            turned = torch.cat([q_norm(turned[:, :heads]), k_norm(turned[:, heads:])], 1)
        if turn is not None:
            turned = turned * turn[0] + turned.roll(width // 2, -1) * turn[1]
        q, k = turned.split((heads, kv_heads), 1)
        keys.select(2, first).copy_(k)
        values.select(2, first).copy_(v)
        keys, values = keys.narrow(2, 0, first + 1), values.narrow(2, 0, first + 1)
        if keys.dtype != x.dtype:
            keys, values = keys.to(x.dtype), values.to(x.dtype)
        y = F.scaled_dot_product_attention(q.unsqueeze(2), keys, values, enable_gqa=heads != kv_heads)
        x = x + out(y.view(batch, heads * width))
        gate, up = gate_up(norm2(x)).chunk(2, 1)
        return x + down(F.silu(gate) * up)

    return layer


def _mamba2(backbone: Mamba2) -> Step:
    layers, last = [(normed(layer.norm), _mixer(layer.mixer)) for layer in backbone.layers], normed(backbone.norm_f)

    @torch.no_grad()
    def step(x: Tensor, state: Any) -> Tensor:
        for (norm, mixer), conv, ssm in zip(layers, state.conv, state.ssm):
            x = x + mixer(norm(x), conv, ssm)
        return last(x)

    return step


def _mixer(mixer: Mixer) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """`Mixer.step` as a function of x [B,D] and the memory conv [B,d_conv-1,M] and ssm [B,H,P,N], which it writes in place."""
    in_proj, out_proj, gated = product(mixer.in_proj), product(mixer.out_proj), mixer.norm
    sizes, parts = (mixer.inner, mixer.channels, mixer.heads), (mixer.inner, mixer.shared, mixer.shared)
    weight, bias = mixer.conv1d.weight.detach(), mixer.conv1d.bias.detach()
    groups, wide, heads = mixer.config.groups, mixer.wide, mixer.heads
    taps, dt_bias = weight[:, 0].t().contiguous(), mixer.dt_bias.detach()
    A, D = -mixer.A_log.detach().to(wide).exp(), mixer.D.detach()[:, None]

    def step(x: Tensor, conv: Tensor, ssm: Tensor) -> Tensor:
        batch = len(x)
        gate, mixed, dt = in_proj(x).split(sizes, 1)
        window = torch.cat((conv.to(mixed.dtype), mixed[:, None]), 1)
        conv.copy_(window[:, 1:])
        values, B, C = F.silu((window * taps).sum(1) + bias).split(parts, 1)
        values = values.view(batch, heads, -1)
        y = ssd_advance(values, F.softplus(dt.to(wide) + dt_bias), A, B.view(batch, groups, -1), C.view(batch, groups, -1), ssm)
        y = torch.addcmul(y, values, D.to(y.dtype)).view(batch, -1)
        return out_proj(gated(y, gate))

    return step
