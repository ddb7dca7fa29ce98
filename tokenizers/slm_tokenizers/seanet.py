"""SEANet: the convolutional encoder and decoder of SoundStream and EnCodec.

Tagliasacchi et al., 2020, "SEANet: A Multi-modal Speech Enhancement Network";
Défossez et al., 2022, "High Fidelity Neural Audio Compression", section 3.1.

B batch, C audio channels, N samples, D width of a latent, T frames; hop = product of the ratios, T = ceil(N / hop).
Inside the network a tensor is [B,W,L], W and L changing at each strided layer. On a CPU and without gradients it lies in memory as
[B,L,W], where a convolution is one product of matrices without a copy before and after: the same sums in another order.
The names of the weights are those of the transformers layout of EnCodec.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from slm.errors import SlmError

NORMS = ("weight_norm", "time_group_norm", "none")
PADS = ("reflect", "zero")


@dataclass
class Shape:
    """Everything that encoder and decoder must agree on. `ratios` are in the decoder's order."""

    channels: int = 1
    dim: int = 128
    n_filters: int = 32
    ratios: tuple[int, ...] = (8, 5, 4, 2)
    causal: bool = True
    norm: str = "weight_norm"
    shortcut: bool = True  # a convolution on the skip path of each residual unit, or nothing
    residuals: int = 1
    lstm: int = 2
    kernel: int = 7
    residual_kernel: int = 3
    dilation: int = 2
    compress: int = 2
    last_kernel: int | None = None  # of the last convolution of either side; None: `kernel`
    bidirectional: bool = False  # the encoder's LSTM; the decoder's never is
    pad: str = "reflect"  # or zero, with which a causal network is causal from the first sample on

    @property
    def hop(self) -> int:
        return math.prod(self.ratios)


class Encoder(nn.Module):
    """audio [B,C,N] -> z [B,D,T].

    A causal encoder's z at frame t has heard samples before (t+1)*hop only, except at the very beginning: unless `pad` is
    zero, the first frames are completed by a mirror image of the `kernel`-1 frames that follow.
    """

    def __init__(self, shape: Shape):
        super().__init__()
        check(shape)
        width = shape.n_filters
        layers: list[nn.Module] = [Conv(shape, shape.channels, width, shape.kernel)]
        for ratio in reversed(shape.ratios):
            layers += [Residual(shape, width, shape.dilation**i) for i in range(shape.residuals)]
            layers += [nn.ELU(), Conv(shape, width, 2 * width, 2 * ratio, stride=ratio)]
            width *= 2
        layers += memory(shape, width, shape.bidirectional)
        width *= 2 if shape.lstm and shape.bidirectional else 1
        layers += [nn.ELU(), Conv(shape, width, shape.dim, shape.last_kernel or shape.kernel)]
        self.layers = nn.Sequential(*layers)

    def forward(self, audio: Tensor) -> Tensor:
        return self.layers(audio)


class Decoder(nn.Module):
    """z [B,D,T] -> audio [B,C,T*hop]."""

    def __init__(self, shape: Shape):
        super().__init__()
        check(shape)
        width = shape.n_filters * 2 ** len(shape.ratios)
        layers: list[nn.Module] = [Conv(shape, shape.dim, width, shape.kernel), *memory(shape, width)]
        for ratio in shape.ratios:
            layers += [nn.ELU(), Upsample(shape, width, width // 2, ratio)]
            width //= 2
            layers += [Residual(shape, width, shape.dilation**i) for i in range(shape.residuals)]
        layers += [nn.ELU(), Conv(shape, width, shape.channels, shape.last_kernel or shape.kernel)]
        self.layers = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z)


class Conv(nn.Module):
    """x [B,W,L] -> [B,W',ceil(L/stride)], mirrored or silent beyond the edges; causal ones put all context on the left."""

    def __init__(self, shape: Shape, width: int, out: int, kernel: int, stride: int = 1, dilation: int = 1):
        super().__init__()
        self.conv, self.norm = normed(nn.Conv1d(width, out, kernel, stride, dilation=dilation), shape.norm)
        self.stride = stride
        self.extend = reflect if shape.pad == "reflect" else silence
        total = (kernel - 1) * dilation + 1 - stride
        self.right = 0 if shape.causal else total // 2
        self.left = total - self.right
        self.kept = Kept(by_rows)

    def forward(self, x: Tensor) -> Tensor:
        # The last window is filled up, so that the decoder never returns fewer samples than came in.
        fill = -x.shape[-1] % self.stride
        x = self.extend(x, self.left, self.right + fill)
        if not quick(x):
            return self.norm(self.conv(x))
        return self.norm(convolve(x, self.kept.weight(self.conv), self.conv.bias, self.stride, self.conv.dilation[0]))


class Upsample(nn.Module):
    """x [B,W,L] -> [B,W',L*stride]: a transposed convolution whose surplus is cut, in causal ones on the right only."""

    def __init__(self, shape: Shape, width: int, out: int, stride: int):
        super().__init__()
        self.conv, self.norm = normed(nn.ConvTranspose1d(width, out, 2 * stride, stride), shape.norm)
        self.stride = stride
        self.left = 0 if shape.causal else stride - stride // 2
        self.kept = Kept(partial(side_by_side, stride=stride))

    def forward(self, x: Tensor) -> Tensor:
        # Group norm sees the surplus as well, hence the cut comes after it.
        y = spread(x, self.kept.weight(self.conv), self.conv.bias, self.stride) if quick(x) else self.conv(x)
        return self.norm(y).narrow(-1, self.left, x.shape[-1] * self.stride)


class Residual(nn.Module):
    """x [B,W,L] -> [B,W,L]: a dilated convolution into a narrower width and back, beside a skip path."""

    def __init__(self, shape: Shape, width: int, dilation: int):
        super().__init__()
        hidden = width // shape.compress
        self.block = nn.Sequential(
            nn.ELU(),
            Conv(shape, width, hidden, shape.residual_kernel, dilation=dilation),
            nn.ELU(),
            Conv(shape, hidden, width, 1),
        )
        self.shortcut = Conv(shape, width, width, 1) if shape.shortcut else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.block(x)


class Memory(nn.Module):
    """x [B,W,L] -> [B,W,L]: an LSTM over time, added to its input; [B,2W,L] in both directions, each added to the input."""

    def __init__(self, width: int, depth: int, bidirectional: bool = False):
        super().__init__()
        self.lstm = nn.LSTM(width, width, depth, bidirectional=bidirectional)

    def forward(self, x: Tensor) -> Tensor:
        steps = x.permute(2, 0, 1)
        again = steps.repeat(1, 1, 2) if self.lstm.bidirectional else steps
        return (self.lstm(steps)[0] + again).permute(1, 2, 0)


def memory(shape: Shape, width: int, bidirectional: bool = False) -> list[nn.Module]:
    return [Memory(width, shape.lstm, bidirectional)] if shape.lstm else []


def normed(conv: nn.Module, norm: str) -> tuple[nn.Module, nn.Module]:
    """The convolution, and what follows it: weight norm lives in its weights, group norm after it."""
    if norm == "weight_norm":
        return weight_norm(conv), nn.Identity()
    if norm == "none":
        return conv, nn.Identity()
    return conv, nn.GroupNorm(1, conv.out_channels)


class Kept:
    """The weight of a convolution as the quick way wants it, made anew whenever its parameters are others or were written to."""

    def __init__(self, make: Callable[[Tensor], Tensor]):
        self.make, self.made, self.of = make, None, None

    def weight(self, conv: nn.Module) -> Tensor:
        now = [(p.data_ptr(), p.dtype, None if p.is_inference() else p._version) for p in conv.parameters()]
        if self.of != now or any(version is None for *_, version in now):
            self.made, self.of = self.make(conv.weight.detach()), now
        return self.made


def by_rows(weight: Tensor) -> Tensor:
    """[W',W,K] -> the same, lying in memory as [W',K,W]."""
    return weight.transpose(1, 2).contiguous().transpose(1, 2)


def side_by_side(weight: Tensor, stride: int) -> Tensor:
    """A transposed convolution's [W,W',2*stride] -> [stride*W',W,2], that of a convolution with `stride` outputs side by side."""
    width, out, _ = weight.shape
    return by_rows(weight.view(width, out, 2, stride).flip(2).permute(3, 1, 0, 2).reshape(stride * out, width, 2))


def quick(x: Tensor) -> bool:
    return x.device.type == "cpu" and not torch.is_grad_enabled()


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int = 1, dilation: int = 1) -> Tensor:
    """x [B,W,L], weight [W',W,K] -> [B,W',L'], which lies in memory as [B,L',W']; the values are those of F.conv1d."""
    rows, width, length = x.shape
    x = x.transpose(1, 2).contiguous()  # [B,L,W], no copy if x came from here
    # Told in strides, because those of a single channel or row would be taken for the other order.
    x = x.as_strided((rows, width, 1, length), (length * width, 1, length * width, width))
    return F.conv2d(x, weight.unsqueeze(2), bias, (1, stride), 0, (1, dilation)).squeeze(2)


def spread(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
    """x [B,W,L], weight `side_by_side` -> [B,W',(L+1)*stride]: F.conv_transpose1d, whose outputs each hear two neighbours of x."""
    y = convolve(silence(x, 1, 1), weight, None if bias is None else bias.repeat(stride))  # [B,stride*W',L+1]
    return y.transpose(1, 2).reshape(len(x), -1, weight.shape[0] // stride).transpose(1, 2)


def reflect(x: Tensor, left: int, right: int) -> Tensor:
    """x [B,W,L] -> [B,W,left+L+right] mirrored at both ends; where x is too short to mirror, silence is appended first."""
    short = max(left, right) + 1 - x.shape[-1]
    if short <= 0:
        return pad(x, left, right, "reflect")
    return pad(pad(x, 0, short), left, right, "reflect")[..., :-short]


def silence(x: Tensor, left: int, right: int) -> Tensor:
    """x [B,W,L] -> [B,W,left+L+right] with zeros at both ends."""
    return pad(x, left, right)


def pad(x: Tensor, left: int, right: int, mode: str = "constant") -> Tensor:
    # Of four axes F.pad keeps the order in memory.
    return F.pad(x.unsqueeze(2), (left, right, 0, 0), mode=mode).squeeze(2) if left or right else x


def check(shape: Shape) -> None:
    if shape.norm not in NORMS:
        raise SlmError(f"norm is {shape.norm!r} but must be one of {', '.join(NORMS)}")
    if shape.pad not in PADS:
        raise SlmError(f"pad is {shape.pad!r} but must be one of {', '.join(PADS)}")
    if shape.causal and shape.bidirectional:
        raise SlmError("a causal network cannot be bidirectional: it would hear the future")
    if shape.causal and shape.norm == "time_group_norm":
        raise SlmError("a causal network cannot use time_group_norm: it averages over the future")
