"""Prompts made worse: as much as they should be, always in the same way, and never what is to be said.

N samples, Q levels, T frames, P prompt frames.
"""

import numpy as np
import torch

from slm.data.quick import Quick
from slm.data.rough import Rough, in_a_room, in_noise, over_telephone, worse
from slm.data.utterances import Utterance, Utterances
from slm_tokenizers.codec import tiny

RATE = 16_000


def tone(*hertz: float, seconds: float = 1.0) -> torch.Tensor:
    t = torch.arange(round(seconds * RATE)) / RATE
    return sum(0.1 * torch.sin(2 * torch.pi * f * t) for f in hertz)[None]


def drawn(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_a_telephone_passes_the_middle_and_nothing_else():
    torch.testing.assert_close(over_telephone(tone(100, 1000, 5000), RATE), tone(1000), atol=1e-3, rtol=0)


def test_noise_is_as_loud_as_it_was_asked_for_and_an_echo_comes_behind():
    audio = tone(440)
    for louder in (0.0, 20.0):
        noise = in_noise(audio, louder, drawn()) - audio
        assert abs(20 * torch.log10(audio.norm() / noise.norm()) - louder) < 0.01
    click = torch.zeros(1, RATE)
    click[0, 4000] = 0.5
    heard = in_a_room(click, RATE, 0.3, 0.5, drawn())[0]
    assert not heard[:3990].abs().gt(1e-4).any() and heard[4000] > 0.2
    early, late = heard[4001:5000].square().mean(), heard[7000:8000].square().mean()
    assert early > 100 * late > 0


def test_worse_is_the_same_each_time_as_loud_as_before_and_sometimes_nothing():
    audio = tone(200, 700)
    made = [worse(audio, RATE, drawn(seed)) for seed in range(24)]
    assert all(torch.equal(a, worse(audio, RATE, drawn(seed))) for seed, a in enumerate(made))
    assert all(a.shape == audio.shape and a.isfinite().all() and a.abs().max() <= 1 for a in made)
    assert all(abs(float(a.norm() / audio.norm()) - 1) < 1e-3 for a in made)
    same = sum(torch.allclose(a, audio, atol=1e-6) for a in made)
    assert 0 < same < 12
    assert worse(torch.zeros(1, 400), RATE, drawn(3)).isfinite().all()


def test_a_rough_tokenizer_hears_each_recording_in_its_own_way_and_says_so():
    codec = tiny(card=256).build().eval()
    torch.nn.init.normal_(codec.codebooks.embed)
    rough, audio = Rough(Quick(codec)), torch.stack([tone(150 + 50 * i) for i in range(8)])
    codes = [rough.encode(a[None]) for a in audio]
    assert all(torch.equal(c, rough.encode(a[None])) for a, c in zip(audio, codes))
    plain = [codec.encode(a[None]) for a in audio]
    assert all(a.shape == b.shape for a, b in zip(codes, plain)) and sum(not torch.equal(a, b) for a, b in zip(codes, plain)) >= 4
    other = tiny(card=256).build()
    assert rough.rate == codec.rate and rough.made != Rough(Quick(other)).made and "rough" in rough.made


def utterances(share: float) -> Utterances:
    """Codes below 50 are clean, those above rough."""
    items = []
    for i in range(4):
        codes = torch.full((2, 40), i)
        items.append(Utterance(str(i), str(i // 2 if i < 2 else i), torch.arange(4), torch.full((4,), 10), codes, codes + 50))
    return Utterances(items, torch.zeros(2, 100, 3), frames=400, prompt=(5, 10), rough=share)


def test_prompts_alone_are_rough_and_as_often_as_asked():
    for share in (0.0, 0.4, 1.0):
        data, rough, rows = utterances(share), 0, 0
        for step in range(60):
            batch = data.at(step)
            assert all(int(codes.max()) < 50 for codes in batch["acoustic"] + batch["semantic"])
            rough += sum(int(codes.min()) >= 50 for codes in batch["prompt_codes"])
            rows += len(batch["prompt_codes"])
        assert abs(rough / rows - share) < 0.12, (share, rough, rows)


def test_without_a_share_everything_is_drawn_as_it_was():
    plain, data = utterances(0.0), utterances(0.0)
    for item in plain.batches.items:
        item.rough = None
    for step in range(5):
        a, b = plain.at(step), data.at(step)
        assert all(torch.equal(x, y) for name in a for x, y in zip(a[name], b[name]))
