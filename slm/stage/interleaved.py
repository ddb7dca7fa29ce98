"""A language model that speaks while its text is still coming: text and frames in turns, in one stream (slm/stream/spans.py).

    B rows   S steps   D width   L tokens of text   T frames   P prompt frames   E latent width

As CosyVoice 2 (Du et al., 2024) learns to speak the words of a language model that has not finished its sentence. Text first is a case of
it, with spans longer than any text. Vocabulary, backbone, voice and scores are those of slm/stage/lm.py, which it holds; scores are
normalised over the ids that are legal at each step, and where only one is, nothing is learned or drawn.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from slm.backbone.gated_conv import GatedConv
from slm.backbone.hybrid import Hybrid
from slm.backbone.mamba2 import Mamba2
from slm.backbone.rwkv import RWKV
from slm.backbone.transformer import Transformer
from slm.condition.voice import Voice
from slm.config import LATER
from slm.data.batch import pad
from slm.errors import SlmError
from slm.nn.surprise import surprise
from slm.stage.feeding import Feeding, Saying
from slm.stage.lm import LM, Stream
from slm.stream.part import Part
from slm.stream.sample import Sampling
from slm.stream.spans import Spans, ids_of, tell, walk
from slm.stream.vocabulary import Vocabulary


@dataclass
class Told:
    """ids [B,S,1], padded; lengths [B]; for each set of names that is a choice and to be learned, the cells [B,S] where it is."""

    ids: Tensor
    lengths: Tensor
    choices: dict[tuple[str, ...], Tensor]


class Interleaved(nn.Module):
    """Batch: text [L], codes [T] or [Q,T] of which the first level is told, with spans by alignment `duration` [L], with words `words` [K],
    with a voice `prompt` [P,E]."""

    @dataclass
    class Config:
        spans: Spans = field(default_factory=Spans)
        text: str = "text"
        codes: str = "acoustic"
        backbone: Transformer.Config | Mamba2.Config | RWKV.Config | GatedConv.Config | Hybrid.Config = field(
            default_factory=Transformer.Config
        )
        voice: Voice.Config | None = None
        sampling: Sampling = field(default_factory=Sampling)
        both: bool = False  # whether text is learned too
        cap: float = 30.0  # frames a token of text, at most
        # how far apart tokens stand, and frames, each counted across spans for themselves; none: all in a row
        places: dict[str, float] = field(default_factory=dict, metadata=LATER)

        def build(self, streams: dict[str, Stream]) -> "Interleaved":
            return Interleaved(self, streams)

    def __init__(self, config: "Interleaved.Config", streams: dict[str, Stream]) -> None:
        super().__init__()
        self.config = config
        if streams[config.text].n_q != 1:
            raise SlmError(f"text is told one id after the other, but {config.text!r} has {streams[config.text].n_q} levels")
        n, m = config.spans.text, config.spans.frames
        if m is not None and m > config.cap * n:
            raise SlmError(f"cap = {config.cap} frames a token would end speech within its first span, {m} frames for {n} tokens")
        parts = [Part(config.text, learn=config.both), Part(config.codes, levels=(0, 1), end=True)]
        self.lm = LM(LM.Config(parts, config.backbone, voice=config.voice, places=config.places), streams)
        self.names = (config.text, self.vocabulary.level(config.codes, 0))
        self.levels = streams[config.codes].n_q

    @property
    def vocabulary(self) -> Vocabulary:
        return self.lm.vocabulary

    def forward(self, batch: dict, player: str = "main") -> dict[str, Tensor]:
        return self.loss(batch)

    def loss(self, batch: dict) -> dict[str, Tensor]:
        """Mean negative log-likelihood in nats of what is chosen in spans of codes, and with `both` in spans of text."""
        told = self.told(batch)
        voice = self.lm.hear(batch)
        x = self.lm.inputs(told.ids, None if voice is None else voice[:, None])
        hidden, _ = self.lm.think(x, None, told.lengths, None, at=self.where(told.ids[..., 0]))
        sums = {name: [hidden.new_zeros(()), 0] for name in (self.config.codes, *([self.config.text] if self.config.both else []))}
        for names, cells in told.choices.items():
            found = sums[self.config.codes if self.names[1] in names else self.config.text]
            rows, steps = cells.nonzero(as_tuple=True)
            legal = self.legal(names)
            place = torch.full((self.vocabulary.size,), -1, device=legal.device)
            place[legal] = torch.arange(len(legal), device=legal.device)
            found[0] = found[0] + surprise(self.lm.score(hidden[rows, steps - 1], legal), place[told.ids[rows, steps, 0]])
            found[1] += len(rows)
        return {name: total / max(1, count) for name, (total, count) in sums.items()}

    def told(self, batch: dict) -> Told:
        """The rows in turns, and what is to be learned of them. SlmError for a row without text, or one that cannot be shared out."""
        rows = [self._row(batch, r) for r in range(len(batch[self.config.text]))]
        ids, lengths = pad(rows, self.vocabulary.pad)
        cells: dict[tuple[str, ...], list[tuple[int, int]]] = {}
        for r, row in enumerate(rows):
            for s, (_, legal) in enumerate(walk(row, self.config.spans, self.vocabulary, self.names)):
                if self.learns(legal):
                    cells.setdefault(legal, []).append((r, s))
        choices = {}
        for legal, found in cells.items():
            choices[legal] = torch.zeros(ids.shape, dtype=torch.bool, device=ids.device)
            choices[legal][tuple(torch.tensor(found, device=ids.device).T)] = True
        return Told(ids[..., None], lengths, choices)

    def where(self, ids: Tensor) -> Tensor | None:
        """ids [B,S] told -> where each stands [B,S]: behind as many tokens, or frames in a span of those, as came until then."""
        if not self.config.places:
            return None
        spans, until = [], []
        for name in self.names:
            start, stop = self.vocabulary.range(name)
            spans.append(ids == self.vocabulary.marker(name.split(".")[0]))
            until.append(((ids >= start) & (ids < stop)).cumsum(1))
        began = torch.where(spans[0] | spans[1], torch.arange(ids.shape[1], device=ids.device), 0).cummax(1).values
        text, codes = (count * self.config.places[name] for count, name in zip(until, (self.config.text, self.config.codes)))
        return torch.where(spans[1].gather(1, began), codes, text).float()

    def learns(self, legal: tuple[str, ...]) -> bool:
        """Whether the model is to predict which of these comes next."""
        choice = len(legal) > 1 or legal[0] in self.names
        return choice and (self.config.both or self.names[1] in legal)

    def legal(self, names: tuple[str, ...]) -> Tensor:
        """Global ids of these ranges and markers."""
        return ids_of(names, self.vocabulary).to(self.lm.head.weight.device)

    def speak(self, seed: int, prompt: Tensor | None = None) -> Feeding:
        """Speech that begins before its text is complete, in the voice of `prompt` [P,E]: feed it, then end it."""
        if (prompt is None) != (self.config.voice is None):
            raise SlmError(f"the stage {'needs' if prompt is None else 'has no use for'} a prompt, by its config's voice")
        return Feeding(Saying(self, [seed], self.lm.hear({"prompt": [prompt]})))

    @torch.no_grad()
    def run(self, batch: dict, seeds: list[int]) -> dict:
        """Rows of text, all of it known -> the batch with codes [T], or [1,T] of a stream with levels, `stop` and `nats`, a row each.

        nats: what the ids that were drawn cost, before temperature and top-p.
        """
        saying = Saying(self, seeds, self.lm.hear(batch))
        for r, row in enumerate(saying.rows):
            for piece in self._pieces(batch, r):
                row.feed(piece)
            row.close()
        while saying.step():
            pass
        device = self.lm.head.weight.device
        said = [torch.tensor(row.said, dtype=torch.long, device=device) for row in saying.rows]
        said = said if self.levels == 1 else [codes[None] for codes in said]
        return {**batch, self.config.codes: said, "stop": [row.stop for row in saying.rows], "nats": [row.nats for row in saying.rows]}

    def _row(self, batch: dict, r: int) -> Tensor:
        """One row told [S]."""
        text, codes = batch[self.config.text][r], batch[self.config.codes][r]
        codes = codes[0] if codes.dim() == 2 else codes
        duration, words = (batch[name][r].tolist() if name in batch else None for name in ("duration", "words"))
        return tell(text, codes, self.config.spans.plan(len(text), len(codes), duration, words), self.vocabulary, self.names)

    def _pieces(self, batch: dict, r: int) -> list[Tensor]:
        """The text of a row as it is fed: whole, or word by word."""
        text = batch[self.config.text][r]
        if self.config.spans.text is not None:
            return [text]
        if "words" not in batch:
            raise SlmError("spans of a word each need 'words', the number of tokens of each word, and the batch has none")
        return list(text.split(batch["words"][r].tolist()))
