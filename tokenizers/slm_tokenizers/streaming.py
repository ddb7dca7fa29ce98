"""A causal codec, piece by piece: whatever the pieces, the codes and the audio are those of the whole recording at once.

B batch, C audio channels, n samples and t frames of one push (any number, also none), Q levels, D width of a latent, hop samples
a frame. Inside the network a piece is [B,W,L].

Every layer becomes a small object with `push(x) -> y`, which may hold back what it cannot know yet, and `flush() -> y`, the rest.
SEANet mirrors a recording at both ends, so a convolution cannot begin before it has heard all that its mirror shows: nothing
comes out of EnCodec's encoder for the first seven frames, then a frame for each hop; its decoder is as late, in frames. Weights
are read when a stream is made. Sums may run in another order than at once, so audio agrees to rounding, and codes as long as
no two entries of a codebook are that close.
"""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slm.errors import SlmError
from slm_tokenizers.quantize.residual import Codebooks
from slm_tokenizers.seanet import Conv, Decoder, Encoder, Memory, Residual, Upsample, silence


class Stream(Protocol):
    def push(self, x: Tensor) -> Tensor: ...  # [B,W,L] -> [B,W',L'], L' may be 0

    def flush(self) -> Tensor: ...  # what was held back; the end


class StreamEncoder:
    """audio as it comes -> codes as soon as they are known. SlmError, when made, if the codec is not causal.

    `silent_end`: the last frame is completed with silence, as SoundStream does, and not by a mirror layer by layer.
    """

    def __init__(self, encoder: Encoder, quantizer: Codebooks, channels: int, hop: int, n_q: int, silent_end: bool = False):
        self.layers = stream(encoder.layers)
        self.quantizer, self.channels, self.hop, self.n_q, self.silent_end = quantizer, channels, hop, n_q, silent_end
        self.waiting: Tensor | None = None  # [B,C,<hop]
        self.samples = 0
        self.ended = False

    @torch.no_grad()
    def push(self, audio: Tensor) -> Tensor:
        """The next samples [B,C,n] -> the codes [B,Q,t] that they complete. SlmError on another batch or channels, or NaN."""
        check_open(self.ended)
        self.check(audio)
        audio = audio if self.waiting is None else torch.cat([self.waiting, audio], dim=-1)
        whole = audio.shape[-1] // self.hop * self.hop
        self.waiting = audio[..., whole:].clone()
        return self.codes(self.layers.push(audio[..., :whole])) if whole else self.none()

    @torch.no_grad()
    def flush(self) -> Tensor:
        """The recording has ended -> the codes [B,Q,t] of the rest, ceil(N/hop) in all. SlmError if it was less than a frame."""
        check_open(self.ended)
        least = 1 if self.silent_end else self.hop
        if self.samples < least:
            raise SlmError(f"audio has {self.samples} samples but this codec needs at least {least}")
        self.ended = True
        if self.silent_end:
            self.waiting = F.pad(self.waiting, (0, -self.waiting.shape[-1] % self.hop))
        rest = self.layers.push(self.waiting)
        return self.codes(torch.cat([rest, self.layers.flush()], dim=-1))

    def codes(self, z: Tensor) -> Tensor:
        return self.quantizer.encode(z, self.n_q) if z.shape[-1] else self.none()

    def none(self) -> Tensor:
        return torch.empty(len(self.waiting), self.n_q, 0, dtype=torch.long, device=self.waiting.device)

    def check(self, audio: Tensor) -> None:
        if audio.dim() != 3 or not audio.is_floating_point() or audio.shape[1] != self.channels:
            raise SlmError(f"audio is {audio.dtype} of shape {list(audio.shape)} but floats [B, {self.channels}, n] are needed")
        if self.waiting is not None and len(audio) != len(self.waiting):
            raise SlmError(f"audio has {len(audio)} rows but this stream began with {len(self.waiting)}")
        if not audio.isfinite().all():
            raise SlmError("audio holds NaN or infinite samples")
        self.samples += audio.shape[-1]


class StreamDecoder:
    """codes as they come -> audio as soon as it is known. SlmError, when made, if the codec is not causal."""

    def __init__(self, decoder: Decoder, quantizer: Codebooks, hop: int, samples: int | None = None):
        self.layers = stream(decoder.layers)
        self.quantizer, self.hop = quantizer, hop
        self.total = samples  # of the whole recording, if known
        self.frames = self.given = 0
        self.rows: int | None = None
        self.ended = False

    @torch.no_grad()
    def push(self, codes: Tensor) -> Tensor:
        """The next codes [B,Q',t] -> audio [B,C,n], as much as is certain. SlmError on another batch, or a code out of range."""
        check_open(self.ended)
        z = self.quantizer.decode(codes)
        if self.rows not in (None, len(codes)):
            raise SlmError(f"codes have {len(codes)} rows but this stream began with {self.rows}")
        self.rows = len(codes)
        self.frames += codes.shape[-1]
        return self.cut(self.layers.push(z))

    @torch.no_grad()
    def flush(self) -> Tensor:
        """The codes have ended -> the rest of the audio [B,C,n], T*hop samples in all, or `samples`; SlmError if those are more."""
        check_open(self.ended)
        held = self.frames * self.hop
        if not held:
            raise SlmError("this stream ended before it was given a code")
        if self.total is not None and not 1 <= self.total <= held:
            raise SlmError(f"samples is {self.total} but these codes hold 1 to {held} samples")
        self.ended = True
        return self.cut(self.layers.flush())

    def cut(self, audio: Tensor) -> Tensor:
        if self.total is not None:
            audio = audio[..., : max(0, self.total - self.given)]
        self.given += audio.shape[-1]
        return audio


class Pointwise:
    """A layer without memory."""

    def __init__(self, layer: nn.Module):
        self.layer = layer

    def push(self, x: Tensor) -> Tensor:
        self.none = nothing(x, x.shape[1])
        return self.layer(x)

    def flush(self) -> Tensor:
        return self.none


class Chain:
    """Layers one after the other."""

    def __init__(self, layers: list[Stream]):
        self.layers = layers

    def push(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer.push(x)
        return x

    def flush(self) -> Tensor:
        x = self.layers[0].flush()
        for layer in self.layers[1:]:
            x = torch.cat([layer.push(x), layer.flush()], dim=-1)
        return x


class Convolution:
    """A causal Conv: keeps the inputs that later windows need, and makes up what lies before the first and after the last."""

    def __init__(self, conv: Conv):
        if conv.right or isinstance(conv.norm, nn.GroupNorm):
            raise SlmError("this codec is not causal: it hears the future, so it cannot be streamed; encode or decode it at once")
        inner = conv.conv
        self.weight, self.bias = inner.weight.detach(), None if inner.bias is None else inner.bias.detach()
        self.stride, self.dilation, self.left, self.extend = inner.stride[0], inner.dilation[0], conv.left, conv.extend
        self.span = (inner.kernel_size[0] - 1) * self.dilation + 1
        # The mirror at the start shows `left` samples, that at the end at most stride - 1, each without the sample at the edge.
        self.needs = 1 if self.extend is silence else max(self.left, self.stride - 1) + 1
        self.kept: Tensor | None = None  # [B,W,L], from the first sample of the next window on
        self.begun = False
        self.length = 0

    def push(self, x: Tensor) -> Tensor:
        self.length += x.shape[-1]
        self.kept = x if self.kept is None else torch.cat([self.kept, x], dim=-1)
        if not self.begun and self.kept.shape[-1] >= self.needs:
            self.begun = True
            self.kept = self.extend(self.kept, self.left, 0)
        if not self.begun:
            return nothing(self.kept, len(self.weight))
        return self.windows()

    def flush(self) -> Tensor:
        fill = -self.length % self.stride
        if not self.begun:
            if not self.length:
                return nothing(self.kept, len(self.weight))
            self.kept = self.extend(self.kept, self.left, fill)
        elif fill:
            # `kept` holds more than `left` samples, and strided kernels span two strides: enough to mirror less than one.
            self.kept = self.extend(self.kept, 0, fill)
        return self.windows()

    def windows(self) -> Tensor:
        count = max(0, (self.kept.shape[-1] - self.span) // self.stride + 1)
        if not count:
            return nothing(self.kept, len(self.weight))
        heard = self.kept[..., : (count - 1) * self.stride + self.span]
        self.kept = self.kept[..., count * self.stride :].clone()
        return F.conv1d(heard, self.weight, self.bias, self.stride, dilation=self.dilation)


class Upsampling:
    """A causal Upsample: each input sounds in its own `stride` outputs and in those of the next input."""

    def __init__(self, up: Upsample):
        if up.left or isinstance(up.norm, nn.GroupNorm):
            raise SlmError("this codec is not causal: it hears the future, so it cannot be streamed; encode or decode it at once")
        self.weight, self.bias = up.conv.weight.detach(), None if up.conv.bias is None else up.conv.bias.detach()
        self.stride = up.stride
        self.before: Tensor | None = None  # [B,W,1]

    def push(self, x: Tensor) -> Tensor:
        self.none = nothing(x, self.weight.shape[1])
        if not x.shape[-1]:
            return self.none
        skip = 0 if self.before is None else self.stride
        both = x if self.before is None else torch.cat([self.before, x], dim=-1)
        self.before = x[..., -1:].clone()
        y = F.conv_transpose1d(both, self.weight, self.bias, self.stride)
        return y.narrow(-1, skip, x.shape[-1] * self.stride)

    def flush(self) -> Tensor:
        return self.none


class Remembering:
    """A Memory: the LSTM's state goes from piece to piece."""

    def __init__(self, memory: Memory):
        if memory.lstm.bidirectional:
            raise SlmError("this codec is not causal: its LSTM runs backwards too, so it cannot be streamed; encode it at once")
        self.lstm, self.state = memory.lstm, None

    def push(self, x: Tensor) -> Tensor:
        self.none = nothing(x, x.shape[1])
        if not x.shape[-1]:
            return self.none
        steps = x.permute(2, 0, 1)
        y, self.state = self.lstm(steps, self.state)
        return (y + steps).permute(1, 2, 0)

    def flush(self) -> Tensor:
        return self.none


class Beside:
    """A Residual: two paths, the later of which is waited for."""

    def __init__(self, residual: Residual):
        self.paths = [stream(residual.shortcut), stream(residual.block)]
        self.ahead: list[Tensor | None] = [None, None]  # what a path has said and the other has not

    def push(self, x: Tensor) -> Tensor:
        return self.add([path.push(x) for path in self.paths])

    def flush(self) -> Tensor:
        return self.add([path.flush() for path in self.paths])

    def add(self, new: list[Tensor]) -> Tensor:
        both = [y if old is None else torch.cat([old, y], dim=-1) for old, y in zip(self.ahead, new)]
        ready = min(y.shape[-1] for y in both)
        self.ahead = [y[..., ready:].clone() for y in both]
        return both[0][..., :ready] + both[1][..., :ready]


def stream(layer: nn.Module) -> Stream:
    """The streaming twin of a layer of SEANet, at its beginning. SlmError if it hears the future or is of another kind."""
    if isinstance(layer, nn.Sequential):
        return Chain([stream(part) for part in layer])
    for kind, twin in ((Conv, Convolution), (Upsample, Upsampling), (Residual, Beside), (Memory, Remembering)):
        if isinstance(layer, kind):
            return twin(layer)
    if isinstance(layer, (nn.ELU, nn.Identity)):
        return Pointwise(layer)
    raise SlmError(f"this codec cannot be streamed: it has a layer {type(layer).__name__}, whose past is not known here")


def nothing(like: Tensor, width: int) -> Tensor:
    """[B,width,0], that keeps no memory of what it is like."""
    return like.new_empty(len(like), width, 0)


def check_open(ended: bool) -> None:
    if ended:
        raise SlmError("this stream has ended; make a new one")
