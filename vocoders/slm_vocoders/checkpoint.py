"""Vocoders from and to disk. Three layouts are recognised by their config.json:

original       jik876/hifi-gan: a torch file {"generator": state} and config.json beside it; weights with or without weight norm
transformers   SpeechT5HifiGan: config.json and model.safetensors or pytorch_model.bin
ours           what `save` writes: config.json (slm.config) and model.safetensors

Torch files are read with weights_only=True, so a file cannot run code. A tensor that is missing, unexpected or of another shape
is refused by `load`; `load_with_report` takes what fits and says what did not.
"""

import json
import pickle
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from slm.config import from_dict, to_dict
from slm.errors import SlmError
from slm.nn.mel import LogMel
from slm_vocoders.codes import CodeHiFiGAN
from slm_vocoders.hifigan import HiFiGAN
from slm_vocoders.units import UnitVocoder

Vocoder = HiFiGAN | CodeHiFiGAN | UnitVocoder
State = dict[str, Tensor]
Renamed = dict[str, str | None]  # how their names begin -> how ours do, None for what we have no use for
NORMS = (("weight_g", "weight_v"), ("parametrizations.weight.original0", "parametrizations.weight.original1"))


@dataclass
class Report:
    """Names of our tensors that were filled (with the file's name for each), that the file lacks, has too many of, or has in
    another shape."""

    mapped: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    misshapen: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        return not (self.missing or self.unexpected or self.misshapen)

    def __str__(self) -> str:
        parts = [f"{len(self.mapped)} tensors mapped"]
        for what in ("missing", "unexpected", "misshapen"):
            names = getattr(self, what)
            if names:
                parts.append(f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})")
        return ", ".join(parts)


def load(path: str | Path) -> Vocoder:
    """The vocoder in a folder, or in a weights file with config.json beside it; folded, in eval mode, on the CPU.

    Raises SlmError for a file that cannot be read, an unknown layout, or tensors that do not fit.
    """
    vocoder, report = load_with_report(path)
    if not report.complete:
        raise SlmError(f"The weights of {path} do not fit its config.json: {report}.")
    return vocoder


def load_with_report(path: str | Path) -> tuple[Vocoder, Report]:
    """As `load`, but tensors that do not fit are left as initialised, and the report names them."""
    weights = find_weights(Path(path))
    config, renamed = read_config(weights.with_name("config.json"))
    vocoder = config.build().remove_weight_norm().eval()
    return vocoder, fill(vocoder, read_state(weights), renamed)


def save(vocoder: Vocoder, folder: str | Path) -> None:
    """Write our layout; the weights are folded, so the folder serves for use, not for continuing a training bit by bit."""
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().cpu().contiguous() for name, (tensor, _) in fold(vocoder.state_dict()).items()}
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(to_dict(vocoder.config), indent=2) + "\n")


def find_weights(path: Path) -> Path:
    """The weights file that `path` is, or holds: of several of the original's numbered ones the last."""
    if path.is_file():
        return path
    if not path.is_dir():
        raise SlmError(f"There is no vocoder at {path}.")
    named = [path / name for name in ("model.safetensors", "pytorch_model.bin") if (path / name).is_file()]
    numbered = sorted(file for file in path.glob("g*") if file.is_file())
    if not named and not numbered:
        raise SlmError(f"{path} holds no model.safetensors, pytorch_model.bin or g_* file.")
    return named[0] if named else numbered[-1]


def read_config(path: Path) -> tuple[HiFiGAN.Config | CodeHiFiGAN.Config | UnitVocoder.Config, Renamed]:
    """The config, and how the layout's names differ from ours."""
    try:
        stored = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise SlmError(f"The vocoder's {path} cannot be read: {error}.") from error
    if not isinstance(stored, dict):
        raise SlmError(f"The vocoder's {path} must hold a JSON object.")
    try:
        if "class" in stored:
            config, renamed = from_dict(stored), {}
        elif "model_in_dim" in stored:
            config, renamed = transformers_config(stored), {"upsampler.": "ups."}
            if not config.normalize:  # transformers stores them all the same
                renamed |= {"mean": None, "scale": None}
        else:
            config, renamed = original_config(stored), {}
    except SlmError:
        raise
    except KeyError as error:
        raise SlmError(f"{path} is not the config of a HiFi-GAN: it has no {error}.") from error
    except (TypeError, ValueError) as error:
        raise SlmError(f"{path} is not the config of a HiFi-GAN: {error}.") from error
    if not isinstance(config, HiFiGAN.Config | CodeHiFiGAN.Config | UnitVocoder.Config):
        raise SlmError(f"{path} describes a {type(config).__qualname__}, not a vocoder.")
    return config, renamed


def shape(stored: dict) -> HiFiGAN.Config:
    """What the original and transformers say in the same words."""
    return HiFiGAN.Config(
        channels=stored["upsample_initial_channel"],
        rate=stored["sampling_rate"],
        rates=tuple(stored["upsample_rates"]),
        kernels=tuple(stored["upsample_kernel_sizes"]),
        block_kernels=tuple(stored["resblock_kernel_sizes"]),
        dilations=tuple(map(tuple, stored["resblock_dilation_sizes"])),
    )


def original_config(stored: dict) -> HiFiGAN.Config:
    rate, n_mels = stored["sampling_rate"], stored["num_mels"]
    fmax = stored["fmax"] or rate / 2
    mel = LogMel.Config(rate, stored["n_fft"], stored["hop_size"], stored["win_size"], n_mels, stored["fmin"], fmax, center=False, eps=1e-9)
    return replace(shape(stored), n_in=n_mels, block=int(stored["resblock"]), mel=mel)


def transformers_config(stored: dict) -> HiFiGAN.Config:
    """transformers does not say which mel the weights were trained on, so `mel` is None; SpeechT5's is PRESETS["speecht5-16k"]."""
    return replace(shape(stored), n_in=stored["model_in_dim"], slope=stored["leaky_relu_slope"], normalize=stored["normalize_before"])


def read_state(path: Path) -> State:
    """All tensors of a weights file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError, SafetensorError) as error:
        reason = str(error).strip().split("\n")[0]
        raise SlmError(f"The vocoder's weights {path} cannot be read, the file is damaged or no checkpoint: {reason}.") from error
    state = stored.get("generator", stored) if isinstance(stored, dict) else None
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise SlmError(f"{path} holds no generator: its keys should be tensors, or 'generator' and tensors in it.")
    return state


def fold(state: State) -> dict[str, tuple[Tensor, str]]:
    """name -> (tensor, its name in the file), where a norm g and a direction v become one weight."""
    folded = {name: (tensor, name) for name, tensor in state.items()}
    for g, v in NORMS:
        for name in state:
            stem = name.removesuffix(v)
            if stem != name and stem + g in state:
                norm, direction = folded.pop(stem + g)[0], folded.pop(name)[0]
                folded[stem + "weight"] = torch._weight_norm(direction, norm, 0), name
    return folded


def fill(vocoder: nn.Module, state: State, renamed: Renamed) -> Report:
    """Copy what fits into the folded vocoder."""
    report, own = Report(), vocoder.state_dict()
    missing = dict.fromkeys(own)
    for theirs, (tensor, source) in fold(state).items():
        name = rename(theirs, renamed)
        if name is None:
            continue
        missing.pop(name, None)
        if name not in own:
            report.unexpected.append(source)
        elif own[name].shape != tensor.shape:
            report.misshapen.append(f"{source} {list(tensor.shape)} instead of {list(own[name].shape)}")
        else:
            own[name].copy_(tensor)
            report.mapped[name] = source
    report.missing = list(missing)
    return report


def rename(name: str, renamed: Renamed) -> str | None:
    for theirs, ours in renamed.items():
        if name.startswith(theirs):
            return None if ours is None else ours + name.removeprefix(theirs)
    return name
