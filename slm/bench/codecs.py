"""EnCodec and residual vector quantisation: ours beside their other implementations, all with the same random weights.

The published sizes: EnCodec at 24 kHz and 6 kbit/s on ten seconds, and 8 codebooks of 1,024 entries of width 128 on 1,000, 75 and 1
frames. What the others need is imported here alone, and where it is missing the table says so.

B batch, C entries of a codebook, D width of a latent, N samples, Q levels, T frames.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from slm.bench.run import Contestant, Phase, Race
from slm_tokenizers.encodec import Encodec
from slm_tokenizers.quantize.residual import Codebooks
from slm_tokenizers.seanet import Conv, Memory, Residual, Upsample

KBPS = 6.0
FLOAT = 4  # bytes


def encodec(small: bool = False) -> list[Race]:
    """Encoding and decoding; everybody decodes the codes that ours makes."""
    ours = random_encodec(4 if small else 32)
    seconds = 0.2 if small else 10.0
    audio = noise(int(seconds * ours.rate))
    codes, fast = ours.encode(audio, KBPS), ours.fast()
    encoders = [Contestant("slm", lambda: ours.encode(audio, KBPS))]
    decoders = [Contestant("slm", lambda: ours.decode(codes))]
    for name, make in (("encodec", package_encodec), ("transformers", transformers_encodec)):
        encode, decode = present(name, lambda: make(ours, audio, codes), 2)
        encoders.append(encode)
        decoders.append(decode)
    encoders.append(Contestant("slm, fast()", lambda: fast.encode(audio, KBPS), precision="bf16"))
    decoders.append(Contestant("slm, fast()", lambda: fast.decode(codes), precision="bf16"))
    levels, frames = codes.shape[1:]
    coding = phases(ours.encoder.layers, audio.shape[-1]) + searching(levels, ours.card, ours.config.dim, frames)
    return [
        Race(f"EnCodec 24 kHz, encode {seconds:g} s", seconds, coding, encoders, same_ids),
        Race(f"EnCodec 24 kHz, decode {seconds:g} s", seconds, phases(ours.decoder.layers, frames), decoders, near_audio),
    ]


def rvq(small: bool = False) -> list[Race]:
    """Latents to ids, each level searching what the last left over."""
    torch.manual_seed(0)
    books = Codebooks(2, 16, 8) if small else Codebooks(8, 1024, 128)
    books.embed.mul_(0.8 ** torch.arange(books.n_q).view(-1, 1, 1))
    return [rvq_race(books, torch.randn(1, books.dim, frames)) for frames in ((7, 1) if small else (1000, 75, 1))]


def rvq_race(books: Codebooks, z: Tensor) -> Race:
    contestants = [Contestant("slm", lambda: books.encode(z))]
    contestants += present("encodec", lambda: [package_quantizer(books, z)])
    contestants += present("vector_quantize_pytorch", lambda: [library_quantizer(books, z)])
    name = f"RVQ {books.n_q} x {books.card}, frames: {z.shape[-1]}"
    return Race(name, None, searching(books.n_q, books.card, books.dim, z.shape[-1]), contestants, same_ids)


def present(name: str, make: Callable[[], list[Callable[[], Any]]], count: int = 1) -> list[Contestant]:
    """The contestants that `make` makes, or `count` that are absent because their package is."""
    try:
        return [Contestant(name, run) for run in make()]
    except ImportError:
        return [Contestant(name, None, "not installed")] * count


def random_encodec(filters: int) -> Encodec:
    """Louder than drawn, or the signal would drown in the biases; codebooks that spread over the latents, or ids would mean nothing."""
    torch.manual_seed(0)
    model = Encodec.Config(n_filters=filters).build().eval()
    for name, parameter in model.named_parameters():
        if name.endswith("original0"):
            parameter.mul_(2.0)
        elif name.endswith("bias"):
            parameter.normal_(0.0, 0.03)
    latents = model.encoder(noise(model.rate))  # [1,D,T]
    for level, book in enumerate(model.quantizer.embed):
        book.normal_().mul_(latents.std((0, 2)) * 0.95**level).add_(latents.mean((0, 2)) if level == 0 else 0.0)
    return model


def noise(samples: int) -> Tensor:
    """[1,1,N], louder and louder."""
    return torch.randn(1, 1, samples, generator=torch.Generator().manual_seed(1)) * torch.linspace(0.02, 0.3, samples)


def package_encodec(ours: Encodec, audio: Tensor, codes: Tensor) -> list[Callable[[], Any]]:
    from encodec import EncodecModel
    from encodec.modules import SEANetDecoder, SEANetEncoder
    from encodec.quantization import ResidualVectorQuantizer

    c = ours.config
    shape = {"channels": 1, "dimension": c.dim, "n_filters": c.n_filters, "norm": "weight_norm", "causal": True}
    quantizer = ResidualVectorQuantizer(dimension=c.dim, n_q=c.n_q, bins=c.card)
    theirs = EncodecModel(SEANetEncoder(**shape), SEANetDecoder(**shape), quantizer, list(c.bandwidths), c.rate, 1).eval()
    copy(ours, theirs, [layer._codebook for layer in quantizer.vq.layers])
    theirs.set_target_bandwidth(KBPS)
    return [lambda: theirs.encode(audio)[0][0], lambda: theirs.decode([(codes, None)])]


def transformers_encodec(ours: Encodec, audio: Tensor, codes: Tensor) -> list[Callable[[], Any]]:
    from transformers import EncodecConfig, EncodecModel

    c = ours.config
    theirs = EncodecModel(EncodecConfig(num_filters=c.n_filters, hidden_size=c.dim, codebook_size=c.card)).eval()
    copy(ours, theirs, [layer.codebook for layer in theirs.quantizer.layers])
    return [lambda: theirs.encode(audio, bandwidth=KBPS).audio_codes[0], lambda: theirs.decode(codes[None], [None]).audio_values]


def copy(ours: Encodec, theirs: nn.Module, books: list[nn.Module]) -> None:
    """All three list the same parameters in the same order."""
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        other.copy_(mine.view_as(other))
    for book, embed in zip(books, ours.quantizer.embed, strict=True):
        book.embed.copy_(embed)
        book.inited.fill_(True)


def package_quantizer(books: Codebooks, z: Tensor) -> Callable[[], Tensor]:
    from encodec.quantization import ResidualVectorQuantizer

    theirs = ResidualVectorQuantizer(dimension=books.dim, n_q=books.n_q, bins=books.card).eval()
    for layer, embed in zip(theirs.vq.layers, books.embed):
        layer._codebook.embed.copy_(embed)
        layer._codebook.inited.fill_(True)
    return lambda: theirs.vq.encode(z, n_q=books.n_q).transpose(0, 1)


def library_quantizer(books: Codebooks, z: Tensor) -> Callable[[], Tensor]:
    from vector_quantize_pytorch import ResidualVQ

    theirs = ResidualVQ(
        dim=books.dim, num_quantizers=books.n_q, codebook_size=books.card, codebook_dim=books.dim, shared_codebook=False, diveq=False,
        heads=1, quantize_dropout=False, accept_image_fmap=False, implicit_neural_codebook=False, beam_size=None, eval_beam_size=None,
        quant_grad_frac=0.0, kmeans_init=False, use_cosine_sim=False, threshold_ema_dead_code=0, commitment_weight=1.0,
        orthogonal_reg_weight=0.0, codebook_diversity_loss_weight=0.0, stochastic_sample_codes=False, sample_codebook_temp=0.0,
        rotation_trick=False, directional_reparam=False, learnable_codebook=False, ema_update=True, affine_param=False, sync_codebook=False,
    ).eval()  # fmt: skip
    for layer, embed in zip(theirs.layers, books.embed):
        layer._codebook.embed.copy_(embed[None])
    rows = z.transpose(1, 2).contiguous()  # [B,T,D]
    return lambda: theirs(rows)[1].transpose(1, 2)


def same_ids(ours: Tensor, theirs: Tensor) -> str:
    if ours.shape != theirs.shape:
        return f"no: shape {list(theirs.shape)}"
    same = (ours == theirs).double().mean().item()
    return "ids identical" if same == 1.0 else f"{same:.2%} of the ids"


def near_audio(ours: Tensor, theirs: Tensor) -> str:
    if ours.shape != theirs.shape:
        return f"no: shape {list(theirs.shape)}"
    away = (ours - theirs).abs().max().item()
    loud = 10 * torch.log10(ours.pow(2).mean() / (ours - theirs).pow(2).mean().clamp_min(1e-30)).item()
    return f"within {away:.0e}" if away <= 1e-4 else f"no: {away:.0e}, {loud:.0f} dB"


def searching(levels: int, card: int, dim: int, frames: int) -> list[Phase]:
    """A level can begin only when the one before it has ended."""
    return [Phase(2 * frames * card * dim, card * dim * FLOAT)] * levels


def phases(layers: nn.Sequential, length: int) -> list[Phase]:
    """The products of SEANet on an input [1,W,length]; not counted is what costs nothing beside them: ELU, edges, sums."""
    found = []
    for layer in layers:
        if isinstance(layer, Residual):
            found += [product(part, length) for part in (layer.block[1], layer.block[3], layer.shortcut)]
        elif isinstance(layer, Conv):
            length = -(-length // layer.stride)
            found.append(product(layer, length))
        elif isinstance(layer, Upsample):
            found.append(product(layer, length))
            length *= layer.stride
        elif isinstance(layer, Memory):
            found += remembering(layer.lstm, length)
    return found


def product(layer: Conv | Upsample, length: int) -> Phase:
    return Phase(2.0 * layer.conv.weight.numel() * length, layer.conv.weight.numel() * FLOAT)


def remembering(lstm: nn.LSTM, length: int) -> list[Phase]:
    """What comes from the input is one product; what comes from the last state is a step after the other, reading all its weights."""
    entries = 4 * lstm.hidden_size**2  # of either matrix of a layer
    layer = [Phase(2.0 * entries * length, entries * FLOAT), Phase(2.0 * entries * length, entries * FLOAT * length)]
    return layer * lstm.num_layers
