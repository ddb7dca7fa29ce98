"""A recording to a file of codes, and back, by any acoustic tokenizer.

    in.wav -> audio [1,1,N] -> codes [1,Q,T] -> out.safetensors {"codes": [Q,T]} and, as text, which tokenizer made them

Codes mean nothing without their tokenizer's weights, so the file holds their fingerprint, and decoding with others is an error.
What lasts longer than PIECE goes through the tokenizer piece by piece where that changes nothing, so that memory holds the audio of an
hour but not the inside of a network over an hour.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from slm.data import audio
from slm.data.replacing import replacing
from slm.errors import SlmError

if TYPE_CHECKING:
    from torch import Tensor, nn

PIECE = 60.0  # seconds
BUNDLED = {"default": Path(__file__).parent / "models" / "default" / "codec"}


@dataclass
class Coded:
    """What was written: `levels` x `frames` codes, or the audio they stand for."""

    path: Path
    levels: int
    frames: int
    seconds: float
    rate: int


def load_tokenizer(name: str) -> nn.Module:
    """A name of BUNDLED, or a tokenizer's file or folder. SlmError if it is none of them, or makes no codes."""
    from slm_tokenizers import load

    if name not in BUNDLED and not Path(name).exists():
        raise SlmError(f"there is no tokenizer {name!r}; give {', '.join(BUNDLED)}, or a tokenizer's file or folder")
    found = load(BUNDLED.get(name, name))
    if not hasattr(found, "encode"):
        raise SlmError(f"{name} holds an encoder, a {type(found).__name__}, that makes vectors and not codes; Units make codes of it")
    return found


def fingerprint(tokenizer: nn.Module) -> str:
    """Sixteen hex digits that change when any weight that makes codes does; a decoder may learn further and codes stay what they are."""
    from torch import uint8

    hashed = blake2b(type(tokenizer).__name__.encode(), digest_size=8)
    for name, tensor in sorted(tokenizer.state_dict().items()):
        if name.startswith("decoder."):
            continue
        hashed.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        hashed.update(tensor.detach().cpu().contiguous().reshape(-1).view(uint8).numpy())
    return hashed.hexdigest()


def encode_file(source: str | Path, out: str | Path, tokenizer: str = "default") -> Coded:
    """Write the codes of a recording. SlmError, and no file: unreadable audio, an unknown tokenizer, an output that cannot be written."""
    from safetensors.torch import save
    from torch import inference_mode, int16, int32

    from slm_tokenizers.pieces import encode_in_pieces

    out = check_output(out, (".safetensors",))
    samples, rate = audio.read(source, shortest=0.0)  # [1,N]
    codec = load_tokenizer(tokenizer)
    heard = audio.resample(samples, rate, codec.rate)
    with inference_mode():
        long = heard.shape[-1] > PIECE * codec.rate and can_be_cut(codec)
        codes = (encode_in_pieces(codec, heard[None], PIECE) if long else codec.encode(heard[None]))[0]  # [Q,T]
    narrow = codes.to(int16 if codec.card <= 2**15 else int32).contiguous()
    known = tokenizer if tokenizer in BUNDLED else str(Path(tokenizer).resolve())
    facts = {"tokenizer": known, "fingerprint": fingerprint(codec), "samples": str(heard.shape[-1]), "rate": str(codec.rate)}
    with replacing(out) as temporary:
        temporary.write_bytes(save({"codes": narrow}, facts))
    return Coded(out, codes.shape[0], codes.shape[1], heard.shape[-1] / codec.rate, codec.rate)


def decode_file(source: str | Path, out: str | Path, tokenizer: str | None = None) -> Coded:
    """Write the audio of a file of codes; tokenizer=None takes the one that the file names.

    SlmError, and no file: not a file of codes, codes of another tokenizer, an output that cannot be written.
    """
    from torch import inference_mode

    from slm_tokenizers.pieces import decode_in_pieces

    out = check_output(out, tuple(audio.FORMATS))
    codes, facts = read_codes(source)
    if tokenizer is None and "tokenizer" not in facts:
        raise SlmError(f"{source} does not say which tokenizer made its codes; name it with --tokenizer")
    codec = load_tokenizer(tokenizer or facts["tokenizer"])
    if facts.get("fingerprint", fingerprint(codec)) != fingerprint(codec):
        raise SlmError(f"{source} was made by another tokenizer (fingerprint {facts['fingerprint']}) than this one ({fingerprint(codec)})")
    if not hasattr(codec, "decode"):
        raise SlmError(f"{source} holds codes of a {type(codec).__name__}, which makes codes but no audio of them; a vocoder of codes does")
    if codes.min() < 0 or codes.max() >= codec.card or codes.shape[0] > codec.n_q:
        raise SlmError(f"{source} holds {codes.shape[0]} levels of ids up to {codes.max()}; the tokenizer has {codec.n_q} of {codec.card}")
    samples = int(facts["samples"]) if "samples" in facts else None
    with inference_mode():
        long = codes.shape[-1] * codec.hop > PIECE * codec.rate and can_be_cut(codec)
        decoded = (decode_in_pieces(codec, codes[None], samples, PIECE) if long else codec.decode(codes[None], samples))[0]  # [1,N]
    audio.write(out, decoded, codec.rate, comment=f"{audio.SYNTHETIC}: decoded from codes")
    return Coded(out, codes.shape[0], codes.shape[1], decoded.shape[-1] / codec.rate, codec.rate)


def can_be_cut(codec: nn.Module) -> bool:
    """Whether pieces of a recording have the codes of the whole: a causal codec that streams, or one that hears finitely far."""
    streams = hasattr(codec, "stream_encoder") and getattr(codec.config, "causal", False)
    return streams or hasattr(codec, "receptive_field")


def read_codes(path: str | Path) -> tuple[Tensor, dict[str, str]]:
    """The codes [Q,T] long of a file and what it says of them. SlmError if it is missing, damaged or holds something else."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), "pt") as file:
            codes, facts = file.get_tensor("codes"), file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise SlmError(f"{path} is not a file of codes ({error})") from error
    if codes.ndim != 2 or codes.is_floating_point() or codes.numel() == 0:
        raise SlmError(f"{path} holds {codes.dtype} codes of shape {list(codes.shape)}; whole numbers [Q,T] are needed")
    return codes.long(), facts


def check_output(path: str | Path, suffixes: tuple[str, ...]) -> Path:
    """path, if a file with one of these suffixes can be written there; said before the work is done, not after."""
    path = Path(path)
    if path.suffix.lower() not in suffixes:
        raise SlmError(f"{path} must end in {' or '.join(suffixes)}")
    if path.is_dir() or not path.parent.is_dir():
        raise SlmError(f"{path} cannot be written: " + ("it is a folder" if path.is_dir() else f"there is no folder {path.parent}"))
    return path
