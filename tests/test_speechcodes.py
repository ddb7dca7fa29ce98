"""Speech codes: what is said apart from who says it, on made-up speech behind a tiny encoder.

B batch, N samples, T frames, D width of the content, V of the voice, K codes.
"""

import math

import pytest
import torch
from torch import Tensor

import slm_tokenizers
from slm.data.madeup import MadeUpSounds
from slm.errors import SlmError
from slm_tokenizers.semantic.encoder import SpeechEncoder
from slm_tokenizers.semantic.mfcc import Mfcc
from slm_tokenizers.semantic.speechcodes import SpeechCodes
from slm_tokenizers.semantic.speechcoding import LearningSpeechCodes
from slm_tokenizers.semantic.unit_bpe import learn
from slm_tokenizers.stored import save

ENCODER = SpeechEncoder.Config(widths=(8,) * 7, dim=16, depth=2, heads=2, hidden=16, positions=5, groups=2)
TINY = SpeechCodes.Config(ENCODER, 1, card=12, dim=6, width=16, voice=5)
LENGTHS = (6400, 720, 5001)  # samples: 19, 2 and 15 frames


def tones(step: int = 7) -> Tensor:
    """[4,1,6400], each row in a voice of its own"""
    return MadeUpSounds().build({}).at(step)["audio"]


@pytest.fixture
def codes() -> SpeechCodes:
    torch.manual_seed(0)
    made = TINY.build().eval()
    heard = made.content(made.heard(tones(3))).rows.detach()
    made.codebooks.embed[0] = heard[:: len(heard) // 12][:12]  # as noise they would all be equally far
    return made


@pytest.fixture
def learning() -> LearningSpeechCodes:
    torch.manual_seed(1)
    return LearningSpeechCodes.Config(TINY, bands=20, width=16, rise=0).build().train()


def test_four_hundred_bits_a_second_and_a_voice():
    published = LearningSpeechCodes.Config(SpeechCodes.Config(ENCODER)).build().codes
    assert published.rate / published.hop * math.log2(published.card) == 400


def test_speech_codes_are_a_tokenizer(codes):
    made = codes.encode(tones())
    assert made.shape == (4, 1, 19) and made.dtype == torch.long and 0 <= made.min() and made.max() < 12 and made.unique().numel() > 3
    assert (codes.n_q, codes.card, codes.rate, codes.hop) == (1, 12, 16_000, 320)
    heard = codes(tones())
    assert torch.equal(heard.codes, made) and torch.equal(heard.out, codes.vectors(made)) and heard.out.shape == (4, 19, 6)
    assert heard.voice.shape == (4, 5) and torch.allclose(heard.voice.norm(dim=1), torch.ones(4))
    assert torch.equal(codes.voice(tones()), heard.voice)


def test_a_row_does_not_depend_on_the_rows_beside_it(codes):
    rows = [row[:, :n] for row, n in zip(tones(), LENGTHS)]
    together = codes(rows)
    assert together.count.tolist() == [19, 2, 15]
    for i, row in enumerate(rows):
        alone, count = codes(row[None]), int(together.count[i])
        assert torch.equal(together.codes[i, :, :count], alone.codes[0]) and (together.codes[i, :, count:] == -1).all()
        assert torch.equal(together.out[i, :count], alone.out[0]) and (together.out[i, count:] == 0).all()
        assert torch.allclose(together.voice[i], alone.voice[0], atol=1e-5)
        frames, one = codes.content(codes.heard(rows)).x[i, :count], codes.content(codes.heard(row[None])).x[0]
        assert torch.allclose(frames, one, atol=1e-5)


def test_codes_survive_saving_to_the_last_bit(codes, tmp_path):
    codes.write(tmp_path)
    loaded = slm_tokenizers.load(tmp_path)
    assert torch.equal(loaded.encode(tones()), codes.encode(tones())) and torch.equal(loaded.voice(tones()), codes.voice(tones()))


def test_the_source_may_be_a_folder_and_travels_with_the_codes(codes, tmp_path):
    save(codes.source, tmp_path / "encoder", exact=True)
    again = SpeechCodes.Config(str(tmp_path / "encoder"), 1, card=12, dim=6, width=16, voice=5).build().eval()
    again.load_state_dict(codes.state_dict())
    again.write(tmp_path / "codes")
    assert torch.equal(slm_tokenizers.load(tmp_path / "codes").encode(tones()), codes.encode(tones()))


def test_learning_lowers_every_loss_on_speech_that_it_has_not_heard(learning):
    """The spectrum is told and halves of a crop find each other; codes in use, and the encoder as it was."""
    before = {name: p.clone() for name, p in learning.codes.source.state_dict().items()}
    torch.manual_seed(2)
    optimiser = torch.optim.Adam([p for p in learning.parameters() if p.requires_grad], 1e-2)
    first = learning.loss({"audio": tones(1000)})
    for step in range(40):
        optimiser.zero_grad()
        sum(learning.loss({"audio": tones(step)}).values()).backward()
        optimiser.step()
    learning.eval()
    last = learning.loss({"audio": tones(1000)})
    assert last["mel"] < 0.7 * first["mel"] and last["speaker"] < 0.7 * first["speaker"]
    assert all(torch.equal(p, before[name]) for name, p in learning.codes.source.state_dict().items())
    codes = learning.finished()
    assert codes.encode(tones(1000)).unique().numel() > 4 and not codes.training


def test_what_is_learned_is_what_is_spoken(learning):
    """The codes of the tokenizer are those whose vectors the decoder heard while learning."""
    for step in range(3):
        learning.loss({"audio": tones(step)})
    learning.eval()
    content = learning.codes.content(learning.codes.heard(tones(5))).x.transpose(1, 2)
    q = learning.learned(content)
    made = learning.finished()(tones(5))
    assert torch.equal(made.codes, q.codes) and torch.allclose(made.out, q.latent.transpose(1, 2), atol=1e-5)


def test_the_reversal_turns_the_gradient_and_grows(learning):
    """The head's weights go down the loss, what codes stand for goes up, and with strength 0 nowhere."""
    torch.manual_seed(3)
    voice = torch.nn.functional.normalize(torch.randn(4, 5), dim=-1)

    def gradients(strength, updates=10, rise=0):
        learning.config.reversal, learning.config.rise = strength, rise
        learning.updates.fill_(updates)
        content = torch.randn(4, 6, 9, generator=torch.Generator().manual_seed(4), requires_grad=True)
        loss = learning.hidden_loss(content, voice)
        return torch.autograd.grad(loss, [content, *learning.guess.parameters()])

    plain, turned, off, half = gradients(-1.0), gradients(1.0), gradients(0.0), gradients(1.0, 4, 10)
    assert plain[0].abs().sum() > 0
    assert torch.allclose(turned[0], -plain[0]) and (off[0] == 0).all() and torch.allclose(half[0], 0.5 * turned[0])
    for one, other in zip(plain[1:], turned[1:]):
        assert torch.equal(one, other)


def test_hiding_never_moves_the_voice_and_only_the_spectrum_moves_both(learning):
    losses = learning.loss({"audio": tones()})
    voice, content = learning.codes.listener.out.weight, learning.codes.content.out.weight

    def reaches(name, weight):
        (gradient,) = torch.autograd.grad(losses[name], weight, retain_graph=True, allow_unused=True)
        return gradient is not None and bool(gradient.abs().sum() > 0)

    assert {name: (reaches(name, content), reaches(name, voice)) for name in losses} == {
        "mel": (True, True), "commit": (True, False), "speaker": (False, True), "hidden": (True, False),
    }  # fmt: skip


def test_the_mel_of_a_frame_is_of_its_own_samples(learning):
    """A click in the samples of frame 9 changes what is wanted of frame 9 most."""
    audio = torch.zeros(2, 1, 6400)
    click = audio.clone()
    click[..., 9 * 320 + 160] = 1.0
    with torch.no_grad():
        for parameter in learning.mel[-1].parameters():
            parameter.zero_()
        content, voice = torch.zeros(2, 6, 19), torch.zeros(2, 5)
        wanted = []
        for frames in (audio, click):
            hear = learning.hear(frames)[..., :38].unflatten(-1, (19, 2))
            wanted.append(hear.sum((1, 3)))
        assert int((wanted[1] - wanted[0])[0].argmax()) == 9
        told = learning.mel_loss(content, voice, click)
        slow = ((learning.hear(click)[..., :38] + 5.0) / 2.5).abs().mean()
        assert torch.allclose(told, slow)


def test_codes_are_merged_and_come_back(codes):
    rows = [row[0] for step in range(6) for row in codes.encode(tones(step))]
    merges = learn(rows, codes.card, 40)
    assert all(torch.equal(merges.decode(merges.encode(row)), row) for row in rows)
    assert sum(len(merges.encode(row)) for row in rows) < 0.8 * sum(map(len, rows))


def test_a_mistake_is_one_sentence(codes, learning, tmp_path):
    for wrong, says in [
        (lambda: codes.encode(torch.zeros(1, 1, 399)), "400"),
        (lambda: codes.encode(torch.zeros(1, 2, 6400)), r"\[B, 1, N\]"),
        (lambda: codes.encode(torch.full((1, 1, 6400), float("nan"))), "NaN"),
        (lambda: codes.vectors(torch.full((1, 1, 3), 12)), "12"),
        (lambda: codes.vectors(torch.zeros(1, 2, 3, dtype=torch.long)), "2 levels"),
        (lambda: SpeechCodes.Config(ENCODER, 3).build(), "layers 0 to 2"),
        (lambda: SpeechCodes.Config(ENCODER, card=0).build(), "card is 0"),
        (lambda: SpeechCodes.Config(None).build(), "source is None"),
        (lambda: SpeechCodes.Config(str(tmp_path / "none")).build(), "none"),
        (lambda: learning.loss({"audio": tones()[:1]}), "at least 2"),
        (lambda: learning.loss({"audio": tones()[..., :500]}), "two frames"),
    ]:
        with pytest.raises(SlmError, match=says):
            wrong()


def test_mfcc_will_do_as_a_source():
    made = SpeechCodes.Config(Mfcc.Config(), 0, card=12, dim=6, width=16, voice=5).build().eval()
    assert made.encode(tones()).shape[:2] == (4, 1)
