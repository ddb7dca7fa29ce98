"""A stage that goes on from a text model: its layers and the vectors of its text, further ids drawn beside them.

    V ids   D width

AudioPaLM (Rubenstein et al., 2023) and SpeechGPT (Zhang et al., 2023) both teach a trained text model to hear and say further ids. The
text model is a folder of transformers' `save_pretrained` (slm/backbone/load.py) or a run of ours, such as recipes/speech_lm/textlm.py's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from slm.errors import SlmError
from slm.stream.vocabulary import Vocabulary


@dataclass
class Known:
    """What a text model knows: layers, a tokenizer's config, and for each id what it is heard and scored by [V,D] and a bias [V]."""

    backbone: nn.Module
    tokenizer: Any
    vocabulary: Vocabulary
    embed: Tensor
    head: Tensor
    bias: Tensor


@torch.no_grad()
def begin(stage: nn.Module, folder: str | Path, text: str = "text") -> None:
    """Give an LM, or Tasks of one, what the model in `folder` knows. New ids are drawn like the old ones' vectors, with a bias of 0.

    SlmError if the folder holds none, or one with other layers or another number of text ids than the stage's.
    """
    lm = getattr(stage, "lm", stage)
    known = read(Path(folder), text)
    if text not in lm.vocabulary.sizes or lm.vocabulary.sizes[text] != known.vocabulary.sizes[text]:
        here, there = lm.vocabulary.sizes.get(text, 0), known.vocabulary.sizes[text]
        raise SlmError(f"{folder} knows {there} ids of {text} but the stage has {here}: give it the tokenizer of the model it begins with")
    if plain(known.backbone.config) != plain(lm.backbone.config):
        raise SlmError(f"{folder} has other layers than the stage: {known.backbone.config} and not {lm.backbone.config}")
    lm.backbone.load_state_dict(known.backbone.state_dict())
    lm.embed.weight.copy_(known.vocabulary.grow(known.embed, lm.vocabulary))
    lm.head.weight.copy_(known.vocabulary.grow(known.head, lm.vocabulary, seed=1))
    lm.head.bias.zero_()
    for name in known.vocabulary.names:
        begin_here, begin_there = lm.vocabulary.range(name), known.vocabulary.range(name)
        lm.head.bias[slice(*begin_here)] = known.bias[slice(*begin_there)]


def plain(config: Any) -> Any:
    """A backbone's config but for how it is trained."""
    return replace(config, dropout=0.0) if hasattr(config, "dropout") else config


def read(folder: Path, text: str = "text") -> Known:
    """The text model in `folder`. SlmError if there is none."""
    from slm.reading import read_config

    if not (folder / "config.json").is_file():
        raise SlmError(f"there is no text model in {folder}: train recipes/speech_lm/textlm.py, or save one there with transformers")
    return _theirs(folder, text) if "model_type" in read_config(folder) else _ours(folder, text)


def _theirs(folder: Path, text: str) -> Known:
    from slm.backbone import load

    model = load(folder)
    vocabulary = Vocabulary({text: model.card})
    table, markers = model.tables[0], vocabulary.range(text)[0]
    rows = [table.embed.weight, table.embed.weight if table.head is None else table.head.weight]
    embed, head = (torch.cat([known.mean(0, keepdim=True).expand(markers, -1), known]) for known in rows)  # a marker is their mean
    return Known(model.backbone, _tokenizer(folder, model.card), vocabulary, embed, head, torch.zeros(vocabulary.size))


def _tokenizer(folder: Path, card: int) -> Any:
    """What lies beside a model of transformers, which may have more ids than it; bytes if nothing does."""
    from slm_tokenizers.text.bytes import Bytes
    from slm_tokenizers.text.pretrained import Pretrained

    return Pretrained.Config.read(folder, card) if (folder / "tokenizer.json").is_file() else Bytes.Config()


def _ours(folder: Path, text: str) -> Known:
    from slm.model import load

    model = load(folder)
    for stage in model.stages.values():
        lm = getattr(stage, "lm", stage)
        if text in getattr(getattr(lm, "vocabulary", None), "sizes", ()):
            return Known(lm.backbone, model.tokenizers[text].config, lm.vocabulary, lm.embed.weight, lm.head.weight, lm.head.bias)
    raise SlmError(f"{folder} is a run without a language model of {text}")


def form(folder: str | Path) -> tuple[Any, Any] | None:
    """The configs of the backbone and of the text tokenizer of the model in `folder`; None if there is no such folder."""
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        return None
    known = read(folder)
    return known.backbone.config, known.tokenizer
