"""A causal language model over the parts of one stream: the stage that says what it was not given.

    B rows   S steps   W ids a step   D width   V vocabulary   L phones   T frames   Q levels   M bytes of a description

Each step's input is the sum of its ids' embeddings, of the voice, and (with a guide) of the phone that is due *next*,
because a step predicts the one after it; at a description in words every layer looks, and a phone may be told how it sounds
(slm/condition/latent.py). Scores are normalised over the ids that are legal there: the range of the part's level, and <eos> for a
part that ends by itself. The ids of one step are said independently of each other, or, with `depth`, one after another
(slm/stage/multiscale.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slm.backbone.gated_conv import GatedConv
from slm.backbone.hybrid import Hybrid
from slm.backbone.mamba2 import Mamba2
from slm.backbone.rwkv import RWKV
from slm.backbone.transformer import Transformer
from slm.condition.description import SOUNDS, Description, Told
from slm.condition.guide import Guide
from slm.condition.latent import LVS, Latent
from slm.condition.voice import Voice
from slm.condition.window import Window
from slm.data.batch import pad
from slm.errors import SlmError
from slm.nn.surprise import surprise
from slm.stage.multiscale import Depth
from slm.stage.say import Progress, saying
from slm.stream.layout import EMPTY, LAYOUTS, frame_of
from slm.stream.part import Merged, Part, merge
from slm.stream.sample import Sampling
from slm.stream.vocabulary import Vocabulary


@dataclass
class Stream:
    """What a stage must know of a stream: levels and codes a level; `embed` [Q,C,E] are the codec's own vectors, if it has any."""

    card: int
    n_q: int = 1
    embed: Tensor | None = None


class LM(nn.Module):
    """loss(batch) and run(batch) over `parts`; the batch holds a list of rows for each part and, with a voice, `prompt` latents [T,E]."""

    @dataclass
    class Config:
        parts: list[Part] = field(default_factory=list)
        backbone: Transformer.Config | Mamba2.Config | RWKV.Config | GatedConv.Config | Hybrid.Config = field(
            default_factory=Transformer.Config
        )
        guide: Guide.Config | None = None
        voice: Voice.Config | None = None
        sampling: dict[str, Sampling] = field(default_factory=dict)  # by part
        tell: tuple[str, ...] = ()  # parts whose codes' probabilities [T,C] are told beside what was drawn, as NAME_chances
        pace: float = 1.0  # durations are said this much longer than drawn
        cap: float = 30.0  # steps a phone, for parts whose length nothing else decides
        smooth: float = 0.0  # label smoothing
        confuse: float = 0.0  # share of the told ids that are wrong while training, so that one slip does not lead to the next
        depth: Depth.Config | None = None  # says the ids of one step one after another
        guidance: float = 1.0  # how many times as strong the voice's effect on what is said is; 1 hears each row once, others twice
        forget: float = 0.0  # share of the rows whose voice is not heard while training, without which guidance has nothing to go by
        window: Window.Config | None = None  # which phones a frame looks at, by the durations said before; for a Transformer
        description: Description.Config | None = None  # heard, forgotten and guided by as a voice is; for a Transformer with a memory
        places: dict[str, float] = field(default_factory=dict)  # by part: how far apart its steps stand, the first at 0; none: all in a row
        latent: Latent.Config | None = None  # how each phone sounds, predicted from the phones and told at them

        def build(self, streams: dict[str, Stream]) -> "LM":
            return LM(self, streams)

    def __init__(self, config: "LM.Config", streams: dict[str, Stream]) -> None:
        super().__init__()
        self.config = config
        self.parts = config.parts
        self.streams = {p.name: streams[p.of] for p in self.parts}
        self.vocabulary = Vocabulary(sizes(self.parts, self.streams))
        self.backbone = config.backbone.build()
        if not self.backbone.causal:
            raise SlmError(f"a language model says one step after the other: its {type(self.backbone).__name__} must be causal")
        dim = self.backbone.dim
        self.embed = nn.Embedding(self.vocabulary.size, dim)
        self.head = nn.Linear(dim, self.vocabulary.size)
        nn.init.normal_(self.embed.weight, std=0.3)
        nn.init.normal_(self.head.weight, std=0.02)
        for part in (part for part in self.parts if part.name in config.tell):
            if part.end or self.streams[part.name].n_q > 1:
                raise SlmError(f"the chances of part {part.name!r} cannot be told: it has several levels, or an end of its own")
        self.depth = config.depth.build(dim, self.vocabulary.size) if config.depth else None
        self.voice = config.voice.build() if config.voice else None
        if not (config.voice or config.description) and (config.guidance != 1 or config.forget):
            both = f"guidance = {config.guidance} and forget = {config.forget}"
            raise SlmError(f"{both} are about a voice or a description, and the config has neither")
        self.guide = config.guide.build(self.streams[config.guide.text].card, dim) if config.guide else None
        self.window = config.window.build() if config.window else None
        if self.window and not isinstance(self.backbone, Transformer):
            raise SlmError(f"a window is a mask on attention: the backbone must be a Transformer, not {type(self.backbone).__name__}")
        if config.places and (not isinstance(self.backbone, Transformer) or set(config.places) != {part.name for part in self.parts}):
            raise SlmError(f"places are told to a Transformer, and of every part: {', '.join(part.name for part in self.parts)}")
        self.description = self._reader(config.description, streams) if config.description else None
        self.latent = self._predictor(config.latent, streams) if config.latent else None

    def _reader(self, config: Description.Config, streams: dict[str, Stream]) -> Description:
        backbone, dim = self.config.backbone, config.reader.dim
        if not isinstance(backbone, Transformer.Config) or backbone.memory != dim:
            raise SlmError(f"a description is looked at by each layer: the backbone must be a Transformer with memory = {dim}")
        if config.text not in streams:
            raise SlmError(f"the description is of the stream {config.text!r}, and there are {', '.join(streams)}")
        return config.build(streams[config.text].card)

    def _predictor(self, config: Latent.Config, streams: dict[str, Stream]) -> Latent:
        if config.text not in self.streams or config.units not in streams:
            raise SlmError(f"a latent sequence is of a part {config.text!r} and learns from a stream {config.units!r}; one is missing")
        return config.build(streams[config.text].card, streams[config.units].card, self.backbone.dim)

    def forward(self, batch: dict, player: str = "main") -> dict[str, Tensor]:
        return self.loss(batch)

    def about(self, parts: list[Part]) -> "LM":
        """The same model, weights and all, for others of its parts, or the same in another order."""
        other = copy(self)
        other.parts = parts
        return other

    def loss(self, batch: dict) -> dict[str, Tensor]:
        """Mean negative log-likelihood of each learned part's ids, in nats; one entry a part.

        Where the batch has NAME_heard, rows of the shape of NAME, the model hears these, and is to say NAME. With a latent sequence
        also its losses, if the batch has what it learns from; while training it must. With descriptions that must tell how a
        recording sounds also what they do not tell, if the batch has it.
        """
        batch = batch if self.latent is None else self.latent.told(batch)
        merged = merge(self.parts, batch, self.vocabulary)
        heard = self.confused(self.as_heard(merged, batch))
        read = self.read(batch)
        voice, told = self._forgotten(self.hear(batch), read)
        x = self.inputs(heard, self.hints(batch, merged, voice))
        hidden, _ = self.think(x, None, merged.lengths, self.looks(merged, batch), told, self.where(merged))
        hidden = hidden if self.depth is None else self._deep(hidden, heard, merged.learn)
        losses = {part.name: self._loss_of(part, merged, hidden) for part in self.parts if part.learn}
        if self.description and self.description.head and SOUNDS in batch:
            losses[SOUNDS] = self.description.surprise(read, batch[SOUNDS])
        learns = self.latent is not None and (self.training or self.latent.config.units in batch)
        return losses | self.latent.losses(batch) if learns else losses

    def think(
        self, x: Tensor, state: object, lengths: Tensor | None, seen: Tensor | None, told: Told | None = None, at: Tensor | None = None
    ) -> tuple[Tensor, object]:
        """The backbone on x [B,S,D], with a window each step looking at no more than seen [B,S,K], with places standing at [B,S].

        told: the descriptions, where there is no state; one holds them already.
        """
        if told is not None:
            return self.backbone(x, state, lengths, memory=told.memory, memory_lengths=told.lengths, seen=seen, at=at)
        if seen is None and at is None:
            return self.backbone(x, state, lengths)
        return self.backbone(x, state, lengths, seen=seen, at=at)

    def start(self, rows: int, told: Told | None) -> object:
        """The state of rows that have heard nothing but their descriptions."""
        device = self.head.weight.device
        if told is None:
            return self.backbone.start(rows, device=device)
        return self.backbone.start(rows, device=device, memory=told.memory, memory_lengths=told.lengths)

    def looks(self, merged: Merged, batch: dict) -> Tensor | None:
        """Which steps each step looks at [B,S,S], None without a window."""
        if self.window is None:
            return None
        return self.window.seen(*self.window.of(merged, batch))

    def where(self, merged: Merged) -> Tensor | None:
        """Where each step stands [B,S], counted from the marker of its part; None where they stand one behind the other."""
        if not self.config.places:
            return None
        at = torch.zeros(merged.ids.shape[:2])
        for row, spans in enumerate(merged.spans):
            for i, (name, start, _) in enumerate(spans):
                stop = merged.until(row, i)
                at[row, start - 1 : stop] = torch.arange(stop - start + 1) * self.config.places[name]
        return at.to(merged.ids.device)

    def place(self, part: Part, step: int, x: Tensor) -> Tensor | None:
        """Where x [B,1,D] stands [B,1], that step of a part, the marker being step 0."""
        return x.new_full((len(x), 1), step * self.config.places[part.name], dtype=torch.float32) if self.config.places else None

    def _deep(self, hidden: Tensor, ids: Tensor, learn: Tensor) -> Tensor:
        """hidden [B,S,D], ids [B,S,W] -> [B,S,W,D]: what each column of the *next* step is said from, 0 where none of it is learned."""
        rows, steps = learn[:, 1:].any(-1).nonzero(as_tuple=True)
        deep = self.depth(hidden[rows, steps], ids[rows, steps + 1], self.embed)
        return deep.new_zeros(*ids.shape, hidden.shape[-1]).index_put((rows, steps), deep)

    def as_heard(self, merged: Merged, batch: dict) -> Merged:
        """The same with the ids of each NAME_heard in the place of NAME's."""
        other = {part.name: batch[f"{part.name}_heard"] for part in self.parts if f"{part.name}_heard" in batch}
        if not other:
            return merged
        heard = merge(self.parts, batch | other, self.vocabulary)
        if heard.spans != merged.spans:
            raise SlmError(f"what is heard of {' and '.join(other)} must be as long as what is to be said")
        return heard

    def confused(self, merged: Merged) -> Tensor:
        """The ids [B,S,W] as the model hears them: while training, some learned ones are others of their range."""
        if not (self.training and self.config.confuse):
            return merged.ids
        ids, device = merged.ids.clone(), merged.ids.device
        share = torch.rand(len(ids), 1, 1, device=device) * 2 * self.config.confuse  # a row is anything from clean to bad
        wrong = (torch.rand(ids.shape, device=device) < share) & merged.learn & (ids != self.vocabulary.eos)
        for name in self.vocabulary.names:
            begin, end = self.vocabulary.range(name)
            here = wrong & (ids >= begin) & (ids < end)
            ids[here] = torch.randint(begin, end, (int(here.sum()),), device=device)
        return ids

    def _loss_of(self, part: Part, merged: Merged, hidden: Tensor) -> Tensor:
        total, count = hidden.new_zeros(()), 0
        first, stop = part.span(self.streams[part.name].n_q)
        mine = (merged.learn & merged.of(part.name)[..., None]) if part.end or part.stream else merged.learn  # all have the same <eos>
        for level in range(first, stop):
            legal = self.legal(part, level)
            place = torch.full((self.vocabulary.size + 1,), -1, device=hidden.device)
            place[legal] = torch.arange(len(legal), device=hidden.device)
            told = mine & self._within(part, level, merged.ids)
            rows, steps, columns = told.nonzero(as_tuple=True)
            if not len(rows):
                continue
            before = hidden[rows, steps - 1] if self.depth is None else hidden[rows, steps - 1, columns]
            scores = self.score(before, legal)
            target = place[merged.ids[rows, steps, columns]]
            total = total + surprise(scores, target, self.config.smooth)
            count += len(rows)
        return total / max(1, count)

    def _within(self, part: Part, level: int, ids: Tensor) -> Tensor:
        begin, end = self.vocabulary.range(self.vocabulary.level(part.of, level))
        first, _ = part.span(self.streams[part.name].n_q)
        inside = (ids >= begin) & (ids < end)
        return inside | (ids == self.vocabulary.eos) if part.end and level == first else inside

    def legal(self, part: Part, level: int) -> Tensor:
        """Global ids that may stand where `level` of `part` is due, <eos> last."""
        first, _ = part.span(self.streams[part.name].n_q)
        begin, end = self.vocabulary.range(self.vocabulary.level(part.of, level))
        if part.name in (c.duration for c in (self.config.guide, self.config.window) if c):
            begin += 1  # a phone of no frames would be skipped
        ids = torch.arange(begin, end, device=self.head.weight.device)
        if part.end and level == first:
            ids = torch.cat([ids, ids.new_tensor([self.vocabulary.eos])])
        return ids

    def score(self, hidden: Tensor, legal: Tensor) -> Tensor:
        """hidden [...,D], ids [n] -> logits [...,n]"""
        return F.linear(hidden, self.head.weight[legal], self.head.bias[legal])

    def inputs(self, ids: Tensor, hints: Tensor | None) -> Tensor:
        """ids [B,S,W] with EMPTY, hints [B,S,D] -> [B,S,D]"""
        x = (self.embed(ids.clamp(min=0)) * (ids != EMPTY)[..., None]).sum(2)
        return x if hints is None else x + hints

    def hear(self, batch: dict) -> Tensor | None:
        """The prompts as vectors [B,D]."""
        return None if self.voice is None else self.voice(*pad(batch["prompt"], dim=0))

    def read(self, batch: dict) -> Told | None:
        """The descriptions as memories [B,M,·]. SlmError if the batch has none."""
        if self.description is None:
            return None
        text = self.config.description.text
        if text not in batch:
            raise SlmError(f"the stage needs {text!r}, the bytes of a description a row, and was not given it")
        return self.description(batch[text])

    def _forgotten(self, voice: Tensor | None, told: Told | None) -> tuple[Tensor | None, Told | None]:
        """The voices [B,D] and descriptions, while training in some rows nothing."""
        if not (self.training and self.config.forget):
            return voice, told
        rows, device = (len(voice), voice.device) if told is None else (len(told.lengths), told.lengths.device)
        kept = torch.rand(rows, 1, device=device) >= self.config.forget
        return None if voice is None else voice * kept, None if told is None else told.where(kept[:, 0])

    def hints(self, batch: dict, merged: Merged, voice: Tensor | None) -> Tensor | None:
        """Voice [B,D], due phones and how they sound for every step [B,S,D]."""
        hints = self._due(batch, merged, voice)
        if self.latent is None:
            return hints
        sounds = self.latent.steps(self.latent.told(batch)[LVS], merged, self.embed)
        return sounds if hints is None else hints + sounds

    def _due(self, batch: dict, merged: Merged, voice: Tensor | None) -> Tensor | None:
        if self.guide is None:
            return None if voice is None else voice[:, None].expand(-1, merged.ids.shape[1], -1)
        features = self.guide.phones(batch[self.config.guide.text], voice)
        durations = batch.get(self.config.guide.duration) or [None] * len(features)
        parts, rows = {part.name: part for part in self.parts}, []
        for b, spans in enumerate(merged.spans):
            pieces = []
            for i, (name, start, _) in enumerate(spans):
                due = self.steps_due(parts[name], self.due(name, features[b], durations[b]))
                pieces.append(F.pad(due, (0, 0, 0, merged.until(b, i) - start + 1 - len(due))))  # one step early: the marker sees the first
            rows.append(torch.cat(pieces))
        hints = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        hints = F.pad(hints, (0, 0, 0, merged.ids.shape[1] - hints.shape[1]))
        return hints if voice is None else hints + voice[:, None]

    def steps_due(self, part: Part, due: Tensor) -> Tensor:
        """The hint of each frame of a part [T,D] -> that of each step of its layout [S,D]."""
        first, stop = part.span(self.streams[part.name].n_q)
        return due[frame_of(LAYOUTS[part.layout](stop - first, len(due)), len(due)).to(due.device)]

    def due(self, name: str, features: Tensor, duration: Tensor | None) -> Tensor:
        """The hint of each frame of a part [T,D]: none for the phones themselves."""
        c = self.config.guide
        if name == c.text:
            return features.new_zeros(len(features), features.shape[-1])
        if name == c.duration:
            return features
        return self.guide.frames(features, duration)

    @torch.no_grad()
    def chances(self, batch: dict, name: str) -> list[Tensor]:
        """How probable each code of part `name`, of one level, is where the batch has one: rows [T,C], as `run` tells them with `tell`.

        What was said before is the batch's own, or its NAME_heard.
        """
        part = next(part for part in self.parts if part.name == name)
        merged = merge(self.parts, batch, self.vocabulary)
        x = self.inputs(self.as_heard(merged, batch).ids, self.hints(batch, merged, self.hear(batch)))
        hidden, _ = self.think(x, None, merged.lengths, self.looks(merged, batch), self.read(batch), self.where(merged))
        level, _ = part.span(self.streams[name].n_q)
        rows, steps, _ = (merged.of(name)[..., None] & self._within(part, level, merged.ids)).nonzero(as_tuple=True)
        scores = self.score(hidden[rows, steps - 1], self.legal(part, level)).float().softmax(-1)
        return list(scores.split(rows.bincount(minlength=len(merged.ids)).tolist()))

    @torch.no_grad()
    def run(self, batch: dict, seeds: list[int]) -> dict:
        """Say the learned parts the batch lacks, in order. Returns the batch with them and `stop`, a reason a row.

        A part that the batch lacks goes on from NAME_begins, rows of codes of its levels, where the batch has those.
        With `tell` also NAME_chances, rows [T,C]: how probable each code was where one was drawn, before temperature and top-p.
        """
        batch = dict(batch)
        for _ in self.saying(batch, seeds):
            pass
        return batch

    def saying(self, batch: dict, seeds: list[int]) -> Iterator[Progress]:
        """`run` a step at a time, with a look at what was said so far; `batch` itself gets each part that is over, and `stop`."""
        for part in self.parts:
            if part.name not in batch and not part.learn:
                raise SlmError(f"the stage needs {part.name!r} and was not given it")
        return saying(self, batch, seeds)


def sizes(parts: list[Part], streams: dict[str, Stream]) -> dict[str, int]:
    """Vocabulary ranges of the parts: a stream of one level goes by its name, others by level."""
    out: dict[str, int] = {}
    for part in parts:
        stream = streams[part.name]
        first, stop = part.span(stream.n_q)
        out |= {part.of: stream.card} if stream.n_q == 1 else {f"{part.of}.{q}": stream.card for q in range(first, stop)}
    return out
