"""A model on disk: one folder that speaks, and says what it is made of.

config.json            the recipe's tokenizers and stages, each stage's vocabulary hash, the codec's fingerprint
STAGE.safetensors      weights, stored in bfloat16
codec/                 the tokenizer that hears prompts and makes the sound
NAME/                  another tokenizer that was trained, such as units, under the name of its stream
aligner/               what tells when each phone of a prompt is said; it may be put there after training
vocoder/               of units, for a model that says these; it is trained apart and put there
voice.flac, README.md  a default prompt and the model card, if the model has them
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from slm.codes import fingerprint
from slm.config import from_dict, to_dict
from slm.data.replacing import replacing
from slm.errors import SlmError
from slm.recipe import Recipe
from slm.train.checkpoint import check, read

FORMAT = 1
ALIGNER = "aligner"  # what a prompt may need, and training does not
VOCODER = "vocoder"  # what makes sound of units


@dataclass
class Model:
    """A loaded model: tokenizers and stages by name, ready to speak."""

    folder: Path
    recipe: Recipe
    tokenizers: dict[str, Any]
    stages: dict[str, nn.Module]


def save_stage(recipe: Recipe, name: str, module: nn.Module, built: dict[str, Any], out: Path) -> None:
    """Write one stage into the model's folder, beside those that are there already."""
    from safetensors.torch import save

    from slm_tokenizers import codec

    out.mkdir(parents=True, exist_ok=True)
    voice = built[recipe.speaks]
    described = _read_config(out) if (out / "config.json").exists() else {"format": FORMAT, "stages": {}, "vocabulary": {}}
    if described.get("codec", fingerprint(voice)) != fingerprint(voice):
        raise SlmError(f"{out} was trained on codes of another codec; use another --out")
    described |= {"format": FORMAT, "codec": fingerprint(voice), "speaks": recipe.speaks}
    others = {n: c for n, c in recipe.tokenizers.items() if n in built and n != recipe.speaks}
    described["tokenizers"] = {n: _save_tokenizer(c, built[n], out / n) for n, c in others.items()}
    known = described["stages"] | {name: to_dict(recipe.stages[name])}  # others stay as they were trained, whatever the recipe says now
    described["stages"] = {n: known[n] for n in recipe.stages if n in known}
    if hasattr(module, "vocabulary"):
        described["vocabulary"][name] = module.vocabulary.hash
    codec.save(voice, out / "codec", exact=not hasattr(voice, "as_stored"))
    weights = {
        k: v.detach().cpu().to(torch.bfloat16 if v.is_floating_point() else v.dtype).contiguous() for k, v in module.state_dict().items()
    }
    with replacing(out / f"{name}.safetensors") as temporary:
        temporary.write_bytes(save(weights))
    with replacing(out / "config.json") as temporary:
        temporary.write_text(json.dumps(described, indent=1))


def load(folder: Path) -> Model:
    """Read a model's folder. SlmError: incomplete, damaged, other codes or another vocabulary than the weights were trained with."""
    from slm.train.run import streams
    from slm_tokenizers import load as load_tokenizer

    described = _read_config(folder)
    if described.get("format") != FORMAT:
        raise SlmError(f"{folder}/config.json has format {described.get('format')!r}; this version reads {FORMAT}")
    voice = load_tokenizer(folder / "codec")
    if fingerprint(voice) != described.get("codec"):
        raise SlmError(
            f"{folder}/codec is not the codec this model was trained with: {fingerprint(voice)} instead of {described.get('codec')}"
        )
    speaks = described["speaks"]
    if (folder / ALIGNER / "config.json").exists():
        described["tokenizers"].setdefault(ALIGNER, None)
    built = {name: _load_tokenizer(stored, folder / name) for name, stored in described["tokenizers"].items()} | {speaks: voice}
    configs = {name: tokenizer.config for name, tokenizer in built.items() if name != speaks}
    recipe = Recipe(configs, {n: from_dict(s) for n, s in described["stages"].items()}, speaks=speaks)
    stages = {}
    for name, config in recipe.stages.items():
        stage = config.build(streams(built))
        if hasattr(stage, "vocabulary") and stage.vocabulary.hash != described["vocabulary"].get(name):
            raise SlmError(
                f"{folder}: the {name} stage was trained with another vocabulary ({described['vocabulary'].get(name)}) "
                f"than it has here ({stage.vocabulary.hash})"
            )
        path = folder / f"{name}.safetensors"
        weights = read(path)
        check(stage, weights, str(path))
        stages[name] = stage.eval().requires_grad_(False)
    return Model(folder, recipe, built, stages)


def _save_tokenizer(config: Any, tokenizer: Any, folder: Path) -> dict:
    """How a tokenizer beside the one that speaks is remembered: by its config, or as a folder if it has weights."""
    from slm_tokenizers import stored

    if not isinstance(tokenizer, nn.Module):
        return to_dict(config)
    stored.save(tokenizer, folder, exact=True)
    return {"fingerprint": fingerprint(tokenizer)}


def _load_tokenizer(described: dict | None, folder: Path) -> Any:
    from slm_tokenizers import load as load_tokenizer

    if described is None:
        return load_tokenizer(folder)
    if "fingerprint" not in described:
        return from_dict(described).build()
    tokenizer = load_tokenizer(folder)
    if fingerprint(tokenizer) != described["fingerprint"]:
        wanted = described["fingerprint"]
        raise SlmError(f"{folder} is not the tokenizer this model was trained with: {fingerprint(tokenizer)} instead of {wanted}")
    return tokenizer


def _read_config(folder: Path) -> dict:
    path = folder / "config.json"
    try:
        described = json.loads(path.read_text())
    except FileNotFoundError:
        raise SlmError(f"{folder} is no model: it has no config.json") from None
    except ValueError:
        raise SlmError(f"{path} is damaged") from None
    if not isinstance(described, dict):
        raise SlmError(f"{path} is damaged")
    return described


def pack(run: Path, out: Path, voice: Path | None = None, card: Path | None = None) -> int:
    """Copy what speaks out of a run's folder, with a voice of its own and a model card. Returns the bytes written.

    SlmError if the run is no complete model, or `out` is there already.
    """
    import shutil
    import tempfile

    from slm.data import audio

    if out.exists():
        raise SlmError(f"{out} is there already; remove it, or pack into another folder")
    model = load(run)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as temporary:
        part = Path(temporary) / "model"
        for name in ("codec", *(name for name in (*model.tokenizers, VOCODER) if (run / name / "config.json").exists())):
            shutil.copytree(run / name, part / name)
        for name in ("config.json", *(f"{stage}.safetensors" for stage in model.stages)):
            shutil.copy(run / name, part / name)
        if voice:
            samples, rate = audio.read(voice, shortest=1.0)
            audio.write(part / "voice.flac", samples, rate)
        if card:
            shutil.copy(card, part / "README.md")
        part.rename(out)
    return sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
