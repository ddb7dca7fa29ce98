"""What transformers saved, read by ours: how far the two are apart on the same random weights. Part of `slm verify`.

Each model is tiny, written by transformers into a folder of its own and read back through our doors. tests/ hold the same promise on
odd lengths, padded batches, other layouts and gradients; this is what a user's own versions of torch and transformers make of it.

B batch   N samples   Q levels   S steps   T frames
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24}
HEARD = SMALL | {"conv_dim": [8] * 7, "num_conv_pos_embedding_groups": 4, "num_conv_pos_embeddings": 8}
MIMI = SMALL | {
    "num_filters": 4, "upsampling_ratios": [5, 4], "num_key_value_heads": 2, "num_attention_heads": 2, "codebook_size": 32,
    "sliding_window": 12, "codebook_dim": 8, "vector_quantization_hidden_dimension": 8, "num_quantizers": 4, "upsample_groups": 16,
}  # fmt: skip
DAC = {"encoder_hidden_size": 8, "downsampling_ratios": [2, 4, 5], "decoder_hidden_size": 32, "n_codebooks": 4, "codebook_size": 32}
MAMBA2 = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_heads": 8, "head_dim": 4, "state_size": 4, "n_groups": 2, "chunk_size": 32,
    "tie_word_embeddings": True, "vocab_size": 23,
}  # fmt: skip
HIFIGAN = {
    "model_in_dim": 8, "upsample_initial_channel": 16, "upsample_rates": [4, 2], "upsample_kernel_sizes": [8, 4],
    "resblock_kernel_sizes": [3, 7], "resblock_dilation_sizes": [[1, 3], [1, 3]],
}  # fmt: skip


@dataclass
class Apart:
    """The largest difference between theirs and ours; `exact` where none is allowed, otherwise it is a share of the largest value."""

    name: str
    what: str
    error: float
    exact: bool


def names() -> tuple[str, ...]:
    return tuple(_cases())


def compare(only: list[str] | tuple = ()) -> Iterator[Apart]:
    """Every model that transformers and we both have, or those of the names in `only`."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    for name, (theirs, config, fields, measure) in _cases().items():
        if only and name not in only:
            continue
        torch.manual_seed(0)
        reference = lively(getattr(transformers, theirs)(getattr(transformers, config)(**fields)))
        with TemporaryDirectory() as folder, torch.no_grad():
            reference.save_pretrained(folder)
            for what, a, b in measure(reference.eval(), Path(folder)):
                exact = not a.is_floating_point()
                error = (a != b).sum() if exact else (a - b).abs().max() / b.abs().max()
                yield Apart(name, what, error.item(), exact)


def _cases() -> dict[str, tuple[str, str, dict, Callable]]:
    """Name -> class and config of transformers, fields of the config, (theirs, folder) -> what, ours, theirs."""
    words = SMALL | {"vocab_size": 23, "num_key_value_heads": 2}
    return {
        "encodec": ("EncodecModel", "EncodecConfig", {"num_filters": 4, "hidden_size": 16}, codec),
        "dac": ("DacModel", "DacConfig", DAC, codec),
        "mimi": ("MimiModel", "MimiConfig", MIMI, codec),
        "wav2vec2": ("Wav2Vec2Model", "Wav2Vec2Config", HEARD, encoder),
        "hubert": ("HubertModel", "HubertConfig", HEARD, encoder),
        "wav2vec2-bert": ("Wav2Vec2BertModel", "Wav2Vec2BertConfig", SMALL, conformer),
        "llama": ("LlamaForCausalLM", "LlamaConfig", words, language_model),
        "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", words, language_model),
        "qwen3": ("Qwen3ForCausalLM", "Qwen3Config", words, language_model),
        "mamba2": ("Mamba2ForCausalLM", "Mamba2Config", MAMBA2, language_model),
        "rwkv": ("RwkvForCausalLM", "RwkvConfig", {"vocab_size": 23, "hidden_size": 16, "num_hidden_layers": 2}, language_model),
        "hifigan": ("SpeechT5HifiGan", "SpeechT5HifiGanConfig", HIFIGAN, vocoder),
    }


@torch.no_grad()
def lively(model: nn.Module) -> nn.Module:
    """As initialised, norms change nothing, biases are zero and codebooks are empty, so that leaving one out would go unnoticed."""
    for name, x in (*model.named_parameters(), *model.named_buffers()):
        if name.endswith(("codebook.embed", "codebook.embed_sum")):
            x.normal_(0.0, 0.3)
        elif "norm" in name and name.endswith("weight"):
            x.uniform_(0.5, 1.5)
        elif name.endswith("bias") and "dt_" not in name and x.is_floating_point():
            x.normal_(0.0, 0.1)
    return model


def codec(theirs: nn.Module, folder: Path) -> Iterator[tuple[str, Tensor, Tensor]]:
    from slm_tokenizers import load

    ours, audio = load(folder), noise(2, 4801)
    whole = audio[..., : audio.shape[-1] // ours.hop * ours.hop]  # theirs want whole frames of DAC
    if theirs.config.model_type == "encodec":
        codes = theirs.encode(audio, bandwidth=24.0).audio_codes[0]
        sound = theirs.decode(codes[None], [None]).audio_values
    elif theirs.config.model_type == "mimi":
        codes = theirs.encode(audio).audio_codes
        sound = theirs.decode(codes).audio_values
    else:
        audio, codes = whole, theirs.encode(whole).audio_codes
        sound = theirs.decode(audio_codes=codes).audio_values[:, None]
    yield "ids", ours.encode(audio), codes
    made = ours.decode(codes)
    yield "audio", made[..., : sound.shape[-1]], sound[..., : made.shape[-1]]


def encoder(theirs: nn.Module, folder: Path) -> Iterator[tuple[str, Tensor, Tensor]]:
    from slm_tokenizers import load

    audio = noise(2, 4801)
    yield "last layer", load(folder)(audio).out, theirs(audio[:, 0]).last_hidden_state


def conformer(theirs: nn.Module, folder: Path) -> Iterator[tuple[str, Tensor, Tensor]]:
    """From the same filterbank: theirs begins there."""
    from slm_tokenizers import load

    ours, audio = load(folder), noise(2, 4801)
    features = ours.features(audio, torch.tensor([4801, 4801]))
    yield "last layer", ours.contextual(features).out, theirs(features.x).last_hidden_state


def language_model(theirs: nn.Module, folder: Path) -> Iterator[tuple[str, Tensor, Tensor]]:
    from slm.backbone import load

    ours, ids = load(folder), torch.randint(23, (2, 70))
    whole, _ = ours(ids)
    logits = theirs(ids).logits
    yield "logits", whole, logits
    state, pieces = ours.start(2), []
    for piece in ids.split(9, 1):
        said, state = ours(piece, state)
        pieces.append(said)
    yield "logits in chunks", torch.cat(pieces, 1), logits


def vocoder(theirs: nn.Module, folder: Path) -> Iterator[tuple[str, Tensor, Tensor]]:
    from slm_vocoders import load

    mel = torch.randn(2, 8, 13)
    yield "audio", load(folder)(mel)[:, 0], theirs(mel.transpose(1, 2))


def noise(batch: int, samples: int) -> Any:
    return 0.1 * torch.randn(batch, 1, samples)
