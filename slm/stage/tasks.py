"""One model, several tasks: what is given and what is said depends on a tag in front, over one vocabulary of text and speech.

AudioPaLM (Rubenstein et al., 2023) and SpeechGPT (Zhang et al., 2023): speech to text, text to speech, an answer to a question, perhaps
by way of the text of both ("chain of modality"). A task is a list of parts; batches hold rows of one task each.

B rows
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
from slm.config import LATER
from slm.errors import SlmError
from slm.stage.lm import LM, Stream
from slm.stage.multiscale import Depth
from slm.stream.part import Part
from slm.stream.sample import Sampling

TAG = Part("task", learn=False)


class Tasks(nn.Module):
    """Batch: `task` [1] for each row, the number of its task, and the rows of that task's parts."""

    @dataclass
    class Config:
        tasks: dict[str, list[Part]] = field(default_factory=dict)  # numbered in this order
        backbone: Transformer.Config | Mamba2.Config | RWKV.Config | GatedConv.Config | Hybrid.Config = field(
            default_factory=Transformer.Config
        )
        sampling: dict[str, Sampling] = field(default_factory=dict)  # by part
        cap: float = 30.0  # steps for each of the first part's, for parts whose length nothing else decides
        places: dict[str, float] = field(default_factory=dict)  # by part: how far apart its steps stand (LM.Config); none: all in a row
        depth: Depth.Config | None = field(default=None, metadata=LATER)  # says the ids of one step one after another

        def build(self, streams: dict[str, Stream]) -> "Tasks":
            return Tasks(self, streams)

    def __init__(self, config: "Tasks.Config", streams: dict[str, Stream]) -> None:
        super().__init__()
        if not config.tasks:
            raise SlmError("a model of tasks needs at least one")
        self.config, self.names = config, list(config.tasks)
        every = {part.name: part for parts in config.tasks.values() for part in parts}
        places = {TAG.name: 1.0} | {name: config.places[name] for name in every if name in config.places} if config.places else {}
        self.lm = LM(
            LM.Config([TAG, *every.values()], config.backbone, sampling=config.sampling, cap=config.cap, places=places, depth=config.depth),
            streams | {"task": Stream(len(self.names))},
        )

    @property
    def vocabulary(self):
        return self.lm.vocabulary

    def forward(self, batch: dict, player: str = "main") -> dict[str, Tensor]:
        return self.loss(batch)

    def parts(self, task: str) -> list[Part]:
        """The parts of a task, its tag first. SlmError if there is no such task."""
        if task not in self.config.tasks:
            raise SlmError(f"there is no task {task!r}; there are {', '.join(self.names)}")
        return [TAG, *self.config.tasks[task]]

    def loss(self, batch: dict) -> dict[str, Tensor]:
        """Nats an id of each part that the batch's task learns, called TASK.PART. SlmError if rows are of different tasks."""
        numbers = {int(row) for row in batch["task"]}
        if len(numbers) != 1:
            raise SlmError(f"a batch holds rows of one task, not of {', '.join(self.names[n] for n in sorted(numbers))}")
        task = self.names[numbers.pop()]
        return {f"{task}.{name}": loss for name, loss in self.lm.about(self.parts(task)).loss(batch).items()}

    def tagged(self, task: str, rows: int) -> list[Tensor]:
        """What stands under `task` in a batch of so many rows."""
        self.parts(task)
        return [torch.tensor([self.names.index(task)])] * rows

    @torch.no_grad()
    def run(self, batch: dict, seeds: list[int], task: str) -> dict:
        """Say what `task` learns, given the rest: the batch with that and `stop`, a reason a row."""
        device = self.lm.head.weight.device
        tag = [row.to(device) for row in self.tagged(task, len(seeds))]
        return self.lm.about(self.parts(task)).run(batch | {"task": tag}, seeds)
