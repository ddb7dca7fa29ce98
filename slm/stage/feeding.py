"""The loop in which speech comes out while its text still comes in, one id of each row at a time.

    B rows   D width   T frames

A row that lacks the text it needs next waits, and goes on when it is fed, with the same ids as if it had known all of it. It ends when
the model says so ("end"), at a cap derived from the text it has heard ("length"), or because it goes round in circles ("loop").
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from slm.backbone.steps import steps
from slm.errors import SlmError
from slm.stage.row import CHECK
from slm.stream.sample import StopReason, looping, sample
from slm.stream.spans import Cursor

if TYPE_CHECKING:
    from slm.stage.interleaved import Interleaved


class Turns:
    """One row: text that waits, global ids; what it `said`, local codes; why it stopped, if it has, and what its draws cost in `nats`."""

    def __init__(self, stage: "Interleaved") -> None:
        self.stage = stage
        self.cursor = Cursor(stage.config.spans, *stage.names)
        self.waiting: deque[int | None] = deque()  # None: a word ends
        self.closed = False
        self.said: list[int] = []
        self.nats = 0.0
        self.stop: StopReason | None = None

    def feed(self, text: Tensor) -> None:
        """More text [L], local ids; where spans are words, one word. SlmError if it was closed."""
        if self.closed:
            raise SlmError("no text can be told behind the end of a text")
        self.waiting += self.stage.vocabulary.to_global(self.stage.names[0], text).tolist()
        if len(text) and self.stage.config.spans.text is None:
            self.waiting.append(None)

    def close(self) -> None:
        """There is no more text. SlmError if there was none."""
        if not self.waiting and not self.cursor.total:
            raise SlmError("there is no text to say")
        self.closed = True

    def due(self) -> int | tuple[str, ...] | None:
        """The id that comes next, or what it is to be drawn from; None for a row that waits or is done."""
        legal = () if self.stop else self.cursor.legal()
        vocabulary, cursor = self.stage.vocabulary, self.cursor
        if cursor.side == cursor.text and legal and not cursor.ended:
            if cursor.here == cursor.spans.text:
                return vocabulary.marker(cursor.speaks)
            if not self.waiting:
                return vocabulary.eos if self.closed else None
            id = self.waiting.popleft()
            return vocabulary.marker(cursor.speaks) if id is None else id
        return vocabulary.range(legal[0])[0] if len(legal) == 1 and legal[0] != cursor.codes else legal or None

    def hear(self, id: int) -> None:
        """The id that was told."""
        name, codes = self.stage.vocabulary.name_of(id), self.cursor.codes
        self.cursor.hear(name)
        if self.cursor.over:
            self.stop = "end"
        elif name == codes:
            self.said.append(id - self.stage.vocabulary.range(codes)[0])
            if len(self.said) >= self.stage.config.cap * self.cursor.total:
                self.stop = "length"
            elif len(self.said) % CHECK == 0 and looping(self.said):
                self.stop = "loop"

    def place(self) -> float:
        """Where the last id stands, by the stage's places: `Interleaved.where` of a row told so far."""
        config, speaks = self.stage.config, self.cursor.side == self.cursor.codes
        return len(self.said) * config.places[config.codes] if speaks else self.cursor.total * config.places[config.text]


class Saying:
    """Rows that go on together: what the model remembers of each, what was last thought of it [B,D], and its dice."""

    def __init__(self, stage: "Interleaved", seeds: list[int], voice: Tensor | None) -> None:
        self.stage, self.voice = stage, voice
        self.rows = [Turns(stage) for _ in seeds]
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.state = stage.lm.start(len(seeds), None)
        self.quick = steps(stage.lm.backbone)
        self.hidden = stage.lm.head.weight.new_zeros(len(seeds), stage.lm.backbone.dim)

    @torch.no_grad()
    def step(self) -> bool:
        """One more id of each row that neither waits nor is done; whether there was one."""
        due = [row.due() for row in self.rows]
        ids: dict[int, int] = {r: id for r, id in enumerate(due) if isinstance(id, int)}
        drawn = [r for r, legal in enumerate(due) if isinstance(legal, tuple)]
        for legal in dict.fromkeys(due[r] for r in drawn):
            going = [r for r in drawn if due[r] == legal]
            ids |= dict(zip(going, self._draw(legal, going)))
        for r, id in ids.items():
            self.rows[r].hear(id)
        self._think({r: id for r, id in ids.items() if not self.rows[r].stop})
        return bool(ids)

    def _draw(self, names: tuple[str, ...], going: list[int]) -> list[int]:
        """An id of these ranges for each row of `going`."""
        stage, legal = self.stage, self.stage.legal(names)
        scores = stage.lm.score(self.hidden[going], legal).float()
        history = None
        if stage.config.sampling.remembers:
            # codes are the first of the legal ids, so that a local one is its own place among them
            past = [torch.tensor(self.rows[r].said, dtype=torch.long, device=legal.device) for r in going]
            history = torch.nn.utils.rnn.pad_sequence(past, batch_first=True, padding_value=-1)
        places = sample(scores, stage.config.sampling, [self.generators[r] for r in going], history=history)
        costs = -scores.log_softmax(-1).gather(1, places[:, None])[:, 0]
        for r, nats in zip(going, costs.tolist()):
            self.rows[r].nats += nats
        return legal[places].tolist()

    def _where(self) -> Tensor | None:
        """Where the last id of each row stands [B,1]."""
        if not self.stage.config.places:
            return None
        return torch.tensor([[row.place()] for row in self.rows], dtype=torch.float32, device=self.hidden.device)

    def _think(self, ids: dict[int, int]) -> None:
        """The model hears an id of some rows, and nothing of the others."""
        if not ids:
            return
        lm, count, device = self.stage.lm, len(self.rows), self.hidden.device
        told = torch.tensor([ids.get(r, lm.vocabulary.pad) for r in range(count)], device=device)
        real = None if len(ids) == count else torch.tensor([int(r in ids) for r in range(count)], device=device)
        x = lm.inputs(told[:, None, None], None if self.voice is None else self.voice[:, None])
        at = self._where()
        if self.quick is not None and real is None:
            self.hidden = self.quick(x[:, 0], self.state) if at is None else self.quick(x[:, 0], self.state, at=at[:, 0])
            return
        hidden, self.state = lm.think(x, self.state, real, None, at=at)
        self.hidden = hidden[:, -1]  # of a row that waits nothing is drawn before it has heard more


class Feeding:
    """One utterance whose text comes bit by bit. A code is said when it is asked for; what is not taken of one piece is said with the next.

    stop: why it ended, None while it goes on.
    """

    def __init__(self, saying: Saying) -> None:
        self.saying, (self.row,) = saying, saying.rows

    @property
    def stop(self) -> StopReason | None:
        return self.row.stop

    def feed(self, text: Tensor) -> Iterator[int]:
        """More text [L]; where spans are words, one word -> codes of the frames that can be said now."""
        self.row.feed(text)
        return self._said()

    def end(self) -> Iterator[int]:
        """There is no more text -> the codes of all frames that are left. SlmError if there was none."""
        self.row.close()
        return self._said()

    def _said(self) -> Iterator[int]:
        going = True
        while going:
            before = len(self.row.said)
            going = self.saying.step()
            if len(self.row.said) > before:
                yield self.row.said[-1]
