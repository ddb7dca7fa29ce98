"""Bytes: any text as its UTF-8 bytes. L bytes; nothing is normalised, so the round trip is exact."""

from dataclasses import dataclass

import torch

from slm.errors import SlmError


class Bytes:
    """text <-> ids [L] in 0..255. `decode(encode(text)) == text` for every string, lone surrogates included."""

    @dataclass
    class Config:
        def build(self) -> "Bytes":
            return Bytes(self)

    card = 256
    n_q = 1

    def __init__(self, config: "Bytes.Config | None" = None) -> None:
        self.config = config or Bytes.Config()

    def encode(self, text: str) -> torch.Tensor:
        """text -> ids [L] long; L is the number of UTF-8 bytes, 0 for an empty text."""
        return torch.tensor(list(text.encode("utf-8", "surrogatepass")), dtype=torch.long)

    def decode(self, ids: torch.Tensor) -> str:
        """ids [L] -> text; bytes that are no UTF-8 become U+FFFD. Raises SlmError on an id outside 0..255."""
        values = torch.as_tensor(ids).flatten().tolist()
        wrong = [i for i in values if not 0 <= i < self.card]
        if wrong:
            raise SlmError(f"byte id {wrong[0]} is not one of 0..{self.card - 1}")
        data = bytes(values)
        try:
            return data.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:  # a model may say any bytes
            return data.decode("utf-8", "replace")
