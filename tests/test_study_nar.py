"""What the study of VALL-E's second stage measures: figures that must be 0 where all is known, and that no other row changes."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from slm.backbone.transformer import Transformer
from slm.data.continued import Continued
from slm.data.madeup import MadeUpUtterances
from slm.errors import SlmError
from slm.recipe import load
from slm.stage.lm import Stream
from slm.stage.nar import NAR
from slm.study import nar
from slm.train.run import tokenizers

VALLE = load(Path(__file__).parents[1] / "recipes" / "zero_shot" / "valle.py")


def test_counted_pairs_are_free_where_a_level_follows_from_the_one_below_and_dear_where_it_does_not():
    draw = torch.Generator().manual_seed(0)
    first = torch.randint(16, (1, 4000), generator=draw)
    stage = SimpleNamespace(vectors=torch.zeros(3, 16, 4), config=NAR.Config(known=1), n_q=3)
    decided = torch.cat([first, (first + 1) % 16, (first + 5) % 16])
    free = torch.cat([first, torch.randint(16, (2, 4000), generator=draw)])
    rows = [[codes[:, i * 100 : (i + 1) * 100] for i in range(3)] for codes in (decided, free)]
    assert nar.counted([decided], rows[0], stage).value < 0.05
    assert nar.counted([free], rows[1], stage).value == pytest.approx(np.log(16), abs=0.1)


@pytest.fixture(scope="module")
def rows_and_stage():
    r = VALLE.small()
    built = tokenizers(r)
    data = Continued(MadeUpUtterances(), joined=False)
    texts = {u.id: u.id for u in data.build(built).batches.items}
    rows, said = nar.chosen(data, built, texts, 6, shortest=5)
    codec = built["acoustic"]
    torch.manual_seed(0)
    backbone = Transformer.Config(16, 1, 2, causal=False, adaptive=8, positions="none")
    stage = NAR.Config(backbone=backbone).build({"text": Stream(built["text"].card), "acoustic": Stream(codec.card, codec.n_q)})
    return rows, said, stage.eval()


def test_each_row_costs_what_it_costs_alone_and_its_prompt_is_another_recording_of_the_voice(rows_and_stage):
    rows, said, stage = rows_and_stage
    assert 1 < len(rows) == len(said) <= 6
    for row in rows:
        assert not torch.equal(row["prompt"]["acoustic"][:, :5], row["target"]["acoustic"][:, :5])
    costs, frames = nar.nats(stage, rows)
    assert costs.shape == (len(rows), stage.n_q - 1) and frames.tolist() == [row["target"]["acoustic"].shape[1] for row in rows]
    for i, row in enumerate(rows):
        assert np.allclose(nar.nats(stage, [row])[0][0], costs[i], rtol=1e-4)
    levels = [nar.of_level((costs, frames), q).value for q in range(stage.n_q - 1)]
    assert nar.overall((costs, frames)).value == pytest.approx(np.mean(levels))
    other = [row | {"prompt": rows[i - 1]["prompt"]} for i, row in enumerate(rows)]
    assert not np.allclose(nar.nats(stage, other)[0], costs), "a prompt is heard"


def test_what_is_added_stands_above_the_first_level_as_it_was(rows_and_stage):
    rows, _, stage = rows_and_stage
    for row, codes in zip(rows, nar.added(stage, rows)):
        assert codes.shape == row["target"]["acoustic"].shape and torch.equal(codes[:1], row["target"]["acoustic"][:1])


def test_without_two_recordings_of_a_speaker_there_is_no_prompt():
    with pytest.raises(SlmError, match="none of the held-out speakers"):
        nar.chosen(Continued(MadeUpUtterances(), joined=False), tokenizers(VALLE.small()), {}, 6)
