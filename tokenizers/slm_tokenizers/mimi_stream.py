"""Mimi chunk by chunk: the codes and the audio that it makes at once, from chunks of any size, each frame as soon as it is whole.

Each causal layer keeps what its next output still needs: a convolution its last inputs, a transposed one the part of its last
outputs that overlaps the next, a Transformer the keys and values in its window. The sums are those of `Mimi` taken in other
groupings, so audio agrees to rounding, and ids agree unless two entries of a codebook are nearer than rounding to a tie.

B batch, N samples of a chunk, Q levels, T frames, W width inside, L steps inside.
"""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slm.errors import SlmError
from slm_tokenizers import mimi, seanet
from slm_tokenizers.mimi import Mimi
from slm_tokenizers.mono import check_audio
from slm_tokenizers.quantize.residual import check_codes
from slm_tokenizers.windowed import Windowed


class EncodeStream:
    """Audio in, codes out. One object for one recording, or for B of the same length."""

    def __init__(self, codec: Mimi, n_q: int | None = None, batch: int = 1):
        """Of the first `n_q` levels, all by default. SlmError on a level count that the codebooks do not have."""
        self.n_q = codec.n_q if n_q is None else n_q
        codec.quantizer.check_levels(self.n_q)
        self.batch, self.quantizer, self.done = batch, codec.quantizer, False
        self.parts = Chain([*(part(layer) for layer in codec.encoder.layers), Frames(codec.encoder_transformer), Back(codec.downsample)])
        self.none = torch.zeros(batch, 1, 0, device=codec.quantizer.semantic.books.embed.device)

    @torch.no_grad()
    def push(self, audio: Tensor) -> Tensor:
        """audio [B,1,N], one sample or more -> codes [B,Q,T] of the frames that it completes, T = 0 if there are none."""
        refuse(self.done)
        check_audio(audio)
        if len(audio) != self.batch:
            raise SlmError(f"audio has {len(audio)} rows but this stream has {self.batch}")
        return self.codes(self.parts.push(audio))

    @torch.no_grad()
    def flush(self) -> Tensor:
        """The recording is over -> codes [B,Q,T] of the frame begun, T = 0 if there is none."""
        refuse(self.done)
        self.done = True
        return self.codes(self.parts.flush(self.none))

    def codes(self, z: Tensor) -> Tensor:
        if z.shape[-1] == 0:
            return torch.zeros(self.batch, self.n_q, 0, dtype=torch.long, device=z.device)
        return self.quantizer.encode(z, self.n_q)


class DecodeStream:
    """Codes in, audio out: T frames are T*hop samples at once, nothing is held back."""

    def __init__(self, codec: Mimi, batch: int = 1):
        self.batch, self.codec, self.levels, self.done = batch, codec, 0, False
        self.parts = Chain([Ahead(codec.upsample), Frames(codec.decoder_transformer), *(part(layer) for layer in codec.decoder.layers)])

    @torch.no_grad()
    def push(self, codes: Tensor) -> Tensor:
        """codes [B,Q',T], one frame or more, of as many levels as were pushed first -> audio [B,1,T*hop]."""
        refuse(self.done)
        check_codes(codes, self.codec.n_q, self.codec.card)
        if len(codes) != self.batch or codes.shape[1] != (self.levels or codes.shape[1]):
            raise SlmError(f"codes have {len(codes)} rows of {codes.shape[1]} levels but this stream has {self.batch} of {self.levels}")
        z = self.codec.quantizer.decode(codes)
        self.levels = codes.shape[1]
        return self.parts.push(z)

    def flush(self) -> Tensor:
        """The recording is over -> audio [B,1,0]: a causal decoder owes nothing."""
        refuse(self.done)
        self.done = True
        return torch.zeros(self.batch, 1, 0, device=self.codec.quantizer.semantic.books.embed.device)


class Part(Protocol):
    """A causal layer with a memory. What `push` and then `flush` return is, put together, what the layer makes at once."""

    def push(self, x: Tensor) -> Tensor:
        """x [B,W,L], L may be 0 -> [B,W',L'], what is complete by now."""

    def flush(self, x: Tensor) -> Tensor:
        """The last x -> [B,W',L'], all that is left."""


class Back:
    """A convolution, which looks back: it keeps the inputs that its next window begins with."""

    def __init__(self, layer: seanet.Conv | mimi.Downsample):
        self.conv, self.edge = layer.conv, isinstance(layer, mimi.Downsample)  # an edge goes on, or is silent
        self.stride, self.reach = self.conv.stride[0], self.conv.dilation[0] * (self.conv.kernel_size[0] - 1) + 1
        self.kept: Tensor | None = None

    def push(self, x: Tensor) -> Tensor:
        if self.kept is None:
            if x.shape[-1] == 0:
                return self.nothing(x)
            self.kept = x[..., :1].expand(-1, -1, self.reach - self.stride) * float(self.edge)
        x = torch.cat([self.kept, x], dim=-1)
        windows = (x.shape[-1] - self.reach) // self.stride + 1
        self.kept = x[..., max(0, windows) * self.stride :]
        return self.conv(x) if windows > 0 else self.nothing(x)

    def flush(self, x: Tensor) -> Tensor:
        y = self.push(x)
        fill = 0 if self.kept is None else -(self.kept.shape[-1] - self.reach) % self.stride
        if fill == 0:
            return y
        last = self.kept[..., -1:].expand(-1, -1, fill) * float(self.edge)
        return torch.cat([y, self.push(last)], dim=-1)

    def nothing(self, x: Tensor) -> Tensor:
        return x.new_zeros(x.shape[0], self.conv.out_channels, 0)


class Ahead:
    """A transposed convolution, which reaches ahead: it keeps what its last outputs have of the next."""

    def __init__(self, layer: seanet.Upsample | mimi.Upsample):
        self.conv, self.stride = layer.conv, layer.stride
        self.bias = 0.0 if self.conv.bias is None else self.conv.bias[:, None]
        self.kept: Tensor | float = 0.0

    def push(self, x: Tensor) -> Tensor:
        if x.shape[-1] == 0:
            return x.new_zeros(x.shape[0], self.conv.out_channels, 0)
        y = F.conv_transpose1d(x, self.conv.weight, None, self.stride, groups=self.conv.groups)
        y[..., : y.shape[-1] - x.shape[-1] * self.stride] += self.kept
        now, self.kept = y.split([x.shape[-1] * self.stride, y.shape[-1] - x.shape[-1] * self.stride], dim=-1)
        return now + self.bias

    def flush(self, x: Tensor) -> Tensor:
        return self.push(x)


class Frames:
    """A Transformer over frames."""

    def __init__(self, layer: Windowed):
        self.layer, self.past = layer, layer.start()

    def push(self, x: Tensor) -> Tensor:
        return self.layer(x.transpose(1, 2), self.past).transpose(1, 2) if x.shape[-1] else x

    def flush(self, x: Tensor) -> Tensor:
        return self.push(x)


class Beside:
    """A residual unit: as its layers stride by one, both of its ways are always equally far."""

    def __init__(self, layer: seanet.Residual):
        self.block, self.shortcut = Chain([part(inner) for inner in layer.block]), part(layer.shortcut)

    def push(self, x: Tensor) -> Tensor:
        return self.shortcut.push(x) + self.block.push(x)

    def flush(self, x: Tensor) -> Tensor:
        return self.shortcut.flush(x) + self.block.flush(x)


class Through:
    """A layer without a memory."""

    def __init__(self, layer: nn.Module):
        self.layer = layer

    def push(self, x: Tensor) -> Tensor:
        return self.layer(x)

    def flush(self, x: Tensor) -> Tensor:
        return self.layer(x)


class Chain:
    """Parts one after the other."""

    def __init__(self, parts: list[Part]):
        self.parts = parts

    def push(self, x: Tensor) -> Tensor:
        for each in self.parts:
            x = each.push(x)
        return x

    def flush(self, x: Tensor) -> Tensor:
        for each in self.parts:
            x = each.flush(x)
        return x


def part(layer: nn.Module) -> Part:
    """The part that is this layer of a SEANet without an LSTM."""
    kinds = {seanet.Conv: Back, seanet.Upsample: Ahead, seanet.Residual: Beside}
    return kinds.get(type(layer), Through)(layer)


def refuse(done: bool) -> None:
    if done:
        raise SlmError("this stream was flushed: its recording is over, and another one needs a new stream")
