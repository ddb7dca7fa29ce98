"""How it sounds, said at once: nearer with training, a row as if it were alone, and a stretch hears nothing of other frames.

T frames, P prompt frames, Q levels, E latent width.
"""

from pathlib import Path

import pytest
import torch

from slm import recipe as recipes
from slm.backbone.transformer import Transformer
from slm.condition.voice import Voice
from slm.errors import SlmError
from slm.speak import load
from slm.stage.direct import Direct
from slm.stage.given import summed
from slm.stage.lm import Stream
from slm.train.run import train_stage

CARD, LEVELS = 12, 3
EMBED = torch.randn(LEVELS, CARD, 8, generator=torch.Generator().manual_seed(1)) * torch.tensor([1.0, 0.5, 0.2])[:, None, None]
STREAMS = {"text": Stream(20, 1), "acoustic": Stream(CARD, LEVELS, EMBED)}
BACKBONE = Transformer.Config(32, 2, 2, causal=False, adaptive=16)


def built(**config) -> Direct:
    torch.manual_seed(0)
    return Direct.Config(backbone=BACKBONE, voice=Voice.Config(8, 16, 32), **config).build(STREAMS)


def batch(rows: int = 3) -> dict:
    """Rows of different lengths; finer levels follow from the first, so that they can be learned."""
    g = torch.Generator().manual_seed(2)
    out = {"text": [], "duration": [], "acoustic": [], "prompt_codes": []}
    for i in range(rows):
        duration = torch.randint(1, 6, (4 + i,), generator=g)
        first = torch.randint(CARD, (int(duration.sum()),), generator=g)
        out["text"].append(torch.randint(20, (4 + i,), generator=g))
        out["duration"].append(duration)
        out["acoustic"].append(torch.stack([first, (first * 5 + 1) % CARD, (first * 7 + 2) % CARD]))
        out["prompt_codes"].append(torch.randint(CARD, (LEVELS, 5 + 2 * i), generator=g))
    return out


def given(batch: dict) -> dict:
    return {name: batch[name] for name in ("text", "duration", "prompt_codes")} | {"given": [c[:1] for c in batch["acoustic"]]}


def test_it_learns_what_follows_from_the_first_level():
    stage, data = built(confuse=0.1).train(), batch()
    optimiser = torch.optim.AdamW(stage.parameters(), 3e-3)
    losses = []
    for _ in range(150):
        loss = stage(data)["latent"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert all(p.grad is not None for p in stage.parameters())
    assert sum(losses[-10:]) < 0.4 * sum(losses[:10]), (losses[0], losses[-1])
    said = stage.eval().run(given(data), [0] * 3)["latent"]
    for latent, codes in zip(said, data["acoustic"]):
        wanted = summed(EMBED, codes[None])[0]
        assert latent.shape == wanted.shape and (latent - wanted).norm() < 0.5 * (summed(EMBED, codes[None, :1])[0] - wanted).norm()


def test_a_row_is_what_it_is_alone_and_chances_are_means():
    stage, data = built().eval(), given(batch())
    together = stage.run(data, [0] * 3)["latent"]
    for i, row in enumerate(together):
        alone = stage.run({name: [rows[i]] for name, rows in data.items()}, [0])["latent"][0]
        torch.testing.assert_close(alone, row, atol=1e-5, rtol=0)
    sure = [torch.nn.functional.one_hot(row[0], CARD).float() for row in data["given"]]
    for a, b in zip(stage.run(data | {"given_chances": sure}, [0] * 3)["latent"], together):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def test_a_stretch_is_said_of_its_own_frames():
    stage, data = built().eval(), given(batch(1))
    frames = data["given"][0].shape[1]
    part = data | {"given": [data["given"][0][:, 3:8]]}
    a = stage.run(part, [0], at=3)["latent"][0]
    other = data["duration"][0].clone()
    other[-1] += 4  # what comes behind the stretch
    torch.testing.assert_close(stage.run(part | {"duration": [other]}, [0], at=3)["latent"][0], a)
    assert a.shape == (5, 8) and frames > 8
    with pytest.raises(SlmError, match="durations sum to"):
        stage.run(part, [0])


@pytest.mark.parametrize("wrong", [{"backbone": Transformer.Config(32, 2, 2)}, {"codes": "text"}], ids=str)
def test_what_cannot_be_said_at_once_is_told(wrong):
    with pytest.raises(SlmError, match="at once"):
        Direct.Config(**({"backbone": BACKBONE} | wrong)).build(STREAMS)


def test_the_recipe_speaks_and_streams_what_it_speaks(tone_voice, tmp_path):
    r = recipes.load(Path(__file__).parent.parent / "recipes/zero_shot/default.py").small()
    for stage in r.stages:
        train_stage(r, stage, tmp_path / "voice", quiet=True)
    speaker = load(tmp_path / "voice")
    said = speaker.speak("Hello there, and good morning.", voice=tone_voice)
    assert said.stop_reason == "end" and said.audio.isfinite().all() and speaker.settings["passes"] == 1
    stretches = list(speaker.stream("Hello there, and good morning.", voice=tone_voice))
    assert len(stretches) > 1 and torch.equal(torch.cat([each.audio for each in stretches]), said.audio)
