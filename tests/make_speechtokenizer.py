"""Makes tests/fixtures/speechtokenizer*.safetensors with the reference implementation, the `speechtokenizer` package (1.0.1).

    python tests/make_speechtokenizer.py FOLDER

FOLDER is the package, unpacked. A file, one for each activation, holds a tiny model with random weights (`model.*`, in the reference's
own names), audio it was given (`audio.N` [B,1,N]), the codes it gave (`codes.N` [Q,B,T], its order), the audio it made of them
(`made.N` [B,1,T*hop]), and of them without the first level (`voice.N`). The config is in the metadata.
B batch, Q levels, T frames, N samples.
"""

import json
import sys
import types
from pathlib import Path

import torch
from safetensors.torch import save_file

CONFIG = {
    "sample_rate": 16_000, "n_filters": 2, "strides": [5, 4, 2], "dimension": 16, "semantic_dimension": 12, "bidirectional": True,
    "dilation_base": 2, "residual_kernel_size": 3, "n_residual_layers": 1, "lstm_layers": 2, "activation": "ELU",
    "codebook_size": 64, "n_q": 4,
}  # fmt: skip
LENGTHS = {"ELU": (40, 41, 79, 333, 1600), "Snake": (41, 333, 1600)}


def reference(folder: str):
    """Their model class. The package's __init__ would also import its trainer, and with it packages that nothing here needs."""
    package = types.ModuleType("speechtokenizer")
    package.__path__ = [str(Path(folder) / "speechtokenizer")]
    sys.modules["speechtokenizer"] = package
    from speechtokenizer.model import SpeechTokenizer

    return SpeechTokenizer


@torch.no_grad()
def enlivened(model: torch.nn.Module, hear: int) -> torch.nn.Module:
    """As initialised the signal drowns in the biases, unless Snake keeps it up, and all codebooks are zero."""
    snake = any(name.endswith("alpha") for name, _ in model.named_parameters())
    for name, parameter in model.named_parameters():
        if name.endswith("weight_g"):
            parameter.mul_(1.2 if snake else 2.0)
        elif name.endswith("bias"):
            parameter.normal_(0.0, 0.03)
        elif name.endswith("alpha"):
            parameter.uniform_(0.5, 2.0)
    latents = model.encoder(noise(hear, 1))
    mean, std = latents.mean((0, 2)), latents.std((0, 2))
    for level, layer in enumerate(model.quantizer.vq.layers):
        layer._codebook.embed.copy_(torch.randn_like(layer._codebook.embed) * std * 0.8**level + (0 if level else mean))
        layer._codebook.inited.fill_(1)
    return model.eval()


def noise(samples: int, batch: int) -> torch.Tensor:
    return torch.randn(batch, 1, samples, generator=torch.Generator().manual_seed(samples)) * torch.linspace(0.02, 0.4, samples)


@torch.no_grad()
def main(folder: str) -> None:
    for activation, lengths in LENGTHS.items():
        torch.manual_seed(0)
        config = CONFIG | {"activation": activation}
        model = enlivened(reference(folder)(config), 8000)
        tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
        for samples in lengths:
            audio = noise(samples, 2 if samples == 333 else 1)
            codes = model.encode(audio)
            tensors |= {f"audio.{samples}": audio, f"codes.{samples}": codes.short(), f"made.{samples}": model.decode(codes)}
            tensors[f"voice.{samples}"] = model.decode(codes[1:], st=1)
        write("speechtokenizer" if activation == "ELU" else "speechtokenizer_snake", tensors, config)


def write(name: str, tensors: dict[str, torch.Tensor], config: dict) -> None:
    out = Path(__file__).parent / "fixtures" / f"{name}.safetensors"
    out.parent.mkdir(exist_ok=True)
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, out, {"config": json.dumps(config)})
    print(out, out.stat().st_size, "bytes")


if __name__ == "__main__":
    main(sys.argv[1])
