"""The text tokenizer of a pretrained model: whatever `tokenizer.json` of Hugging Face's `tokenizers` says.   L ids of a text"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from slm.errors import SlmError


class Pretrained:
    """text <-> ids [L] in 0..card-1, without the marks that a model puts before or behind a text."""

    @dataclass
    class Config:
        """json: what tokenizer.json holds, so that a model's folder is whole by itself."""

        json: str = ""
        card: int = 0  # ids of the model, where it has more than the tokenizer

        @staticmethod
        def read(folder: str | Path, card: int = 0) -> "Pretrained.Config":
            """Of a folder that transformers' `save_pretrained` left. SlmError: there is no tokenizer.json."""
            path = Path(folder) / "tokenizer.json"
            try:
                return Pretrained.Config(path.read_text(encoding="utf-8"), card)
            except (OSError, UnicodeDecodeError) as error:
                raise SlmError(f"{path} cannot be read; save the tokenizer beside its model ({type(error).__name__})") from None

        def build(self) -> "Pretrained":
            return Pretrained(self)

    n_q = 1

    def __init__(self, config: "Pretrained.Config") -> None:
        from tokenizers import Tokenizer

        self.config = config
        try:
            self._tokenizer = Tokenizer.from_str(config.json)
        except Exception as error:  # it raises no kind of its own
            raise SlmError(f"this is no tokenizer.json: {' '.join(str(error).split())[:120]}") from None
        self.card = max(config.card, self._tokenizer.get_vocab_size())

    def encode(self, text: str) -> torch.Tensor:
        """text -> ids [L] long."""
        return torch.tensor(self._tokenizer.encode(text, add_special_tokens=False).ids, dtype=torch.long)

    def decode(self, ids: torch.Tensor) -> str:
        """ids [L] -> text. Raises SlmError on an id outside 0 .. card - 1."""
        values = torch.as_tensor(ids).flatten().tolist()
        wrong = [i for i in values if not 0 <= i < self.card]
        if wrong:
            raise SlmError(f"text id {wrong[0]} is not one of 0..{self.card - 1}")
        return self._tokenizer.decode(values)
