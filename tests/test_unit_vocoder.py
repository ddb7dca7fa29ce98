"""Vocoders of units: what is said, how high, how long and in whose voice each reach the sound, and nothing else does."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from slm.condition.voice import Voice
from slm.data import resynthesis
from slm.data.prosody import PitchBins
from slm.data.resynthesis import MadeUpResynthesis, Resynthesis, ResynthesisRows
from slm.errors import SlmError
from slm.nn.pitch import pitch as measured
from slm.recipe import load as load_recipe
from slm.study import unitvocoder as study
from slm.study.heldout import Item
from slm.study.run import train
from slm_tokenizers.codec import tiny
from slm_vocoders import CodeHiFiGAN, HiFiGAN, load, save
from slm_vocoders.contour import Contour
from slm_vocoders.durations import Durations
from slm_vocoders.learning import LearningVocoder
from slm_vocoders.losses import MultiMel
from slm_vocoders.source import Filter, pulses
from slm_vocoders.units import UnitVocoder
from slm_vocoders.vocos import Vocos

ROOT = Path(__file__).parent.parent
HIFI = HiFiGAN.Config(8, 16000, 16, (8, 5, 4, 2), (16, 11, 8, 4), 2, (3,), ((1, 2),))
VOCOS = Vocos.Config(8, width=16, low=1, high_width=16, high=1, sourced=True)
EAR = Voice.Config(latent=20, width=16, dim=6)
GENERATORS = {"hifigan": HIFI, "vocos": VOCOS}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)
    torch.set_num_threads(1)


def config(generator=HIFI, n_q: int = 1) -> UnitVocoder.Config:
    durations = Durations.Config(12, 16) if n_q == 1 else None
    return UnitVocoder.Config(CodeHiFiGAN.Config(n_q, 12, generator), Contour.Config(), EAR, durations)


def built(of: UnitVocoder.Config) -> UnitVocoder:
    """With weights so large that every path shows."""
    vocoder = of.build().eval()
    with torch.no_grad():
        for name, parameter in vocoder.named_parameters():
            if name.endswith("original0"):
                parameter.uniform_(0.5, 1)
            elif parameter.ndim > 1:
                parameter.normal_(0, 0.3)
    return vocoder


def told(frames: int = 40, rows: int = 2, n_q: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    hertz = 100 + 80 * torch.rand(rows, frames)
    hertz[:, 5:9] = 0
    return torch.randint(0, 12, (rows, n_q, frames)), hertz, torch.randn(rows, 6)


# --- the generator at frame rate, and the source


def test_the_generator_at_frame_rate_makes_whole_frames_and_its_reach_is_known():
    generator = replace(VOCOS, sourced=False).build()
    x = torch.randn(1, 8, 41, requires_grad=True)
    audio = generator(x)
    assert audio.shape == (1, 1, 41 * 320)
    audio[..., 20 * 320 : 21 * 320].square().sum().backward()
    touched = x.grad.abs().sum(1)[0].nonzero().flatten() - 20
    assert 0 < touched.abs().max() <= generator.receptive_field <= 8


def test_pulses_are_all_the_harmonics_equally_loud():
    hertz, time = torch.full((1, 50), 130.0), torch.arange(1, 50 * 320 + 1).double() / 16000
    count = int(8000 / 130)
    wanted = sum((2 * math.pi * 130 * k * time).cos() for k in range(1, count + 1)) * math.sqrt(2 / count)
    found = pulses(hertz, 16000, 320)[0, 0]
    torch.testing.assert_close(found, wanted.float(), atol=1e-4, rtol=0)
    assert float(found.square().mean()) == pytest.approx(1, abs=0.02)


def test_pulses_stop_where_there_is_no_voice_and_never_look_ahead():
    hertz = torch.tensor([[120.0, 0, 0, 200, 90]])
    later = hertz.clone()
    later[0, 3:] = torch.tensor([310.0, 0])
    a, b = pulses(hertz, 16000, 320), pulses(later, 16000, 320)
    assert not a[..., 320:960].any() and torch.equal(a[..., :960], b[..., :960]) and not torch.equal(a[..., 960:], b[..., 960:])
    assert pulses(torch.tensor([[100.0, 200, 400, 8000]]), 16000, 320).isfinite().all(), "where the kernel is 0 / 0"


def test_a_filter_that_changes_nothing_gives_the_source_back():
    shape = Filter(4, 640, 160)
    with torch.no_grad():
        shape.project.bias.zero_()
    source = torch.randn(2, 1, 3200)
    torch.testing.assert_close(shape(torch.randn(2, 20, 4), source), source, atol=1e-5, rtol=0)


def test_a_sourced_generator_says_pitches_it_is_asked_for_and_one_without_a_source_cannot():
    """Harmonic tones from 100 to 220 Hz are learned in 100 steps; then 113, 137, 164 and 190 Hz are asked for."""

    def learned(sourced: bool) -> list[float]:
        torch.manual_seed(0)
        shape = Vocos.Config(24, width=24, low=1, high_width=32, high=1, sourced=sourced)
        vocoder = UnitVocoder.Config(CodeHiFiGAN.Config(1, 4, shape), Contour.Config()).build()
        mel, optimiser = MultiMel.Config(16000, (512, 1024), (40, 80), floor=1e-4).build(), torch.optim.AdamW(vocoder.parameters(), lr=4e-3)
        for _ in range(100 if sourced else 20):
            hertz = (100 + 120 * torch.rand(3, 1)).expand(3, 16)
            angle = 2 * math.pi * (hertz.repeat_interleave(320, 1) / 16000).cumsum(1)
            tones = 0.1 * sum((k * angle).sin() / k for k in range(1, 9))[:, None]
            optimiser.zero_grad()
            mel(tones, vocoder(torch.zeros(3, 16, dtype=torch.long), hertz)).backward()
            optimiser.step()
        asked = torch.tensor([113.0, 137.0, 164.0, 190.0])
        made = vocoder(torch.zeros(4, 30, dtype=torch.long), asked[:, None].expand(4, 30)).detach()
        return ((measured(made, 16000, 320)[:, 5:25].median(1).values / asked).log().abs()).tolist()

    assert max(learned(True)) < 0.02
    assert max(learned(False)) > 0.1


# --- pitch and durations


def test_what_has_no_pitch_is_told_so_and_bins_tell_no_more_than_their_step():
    numbers = Contour.Config().build(5)
    assert not torch.equal(numbers(torch.tensor([[0.0]])), numbers(torch.tensor([[150.0]]))), "150 Hz is 0 in the logarithm, and voiced"
    binned = Contour.Config(8).build(5)
    scale = PitchBins.Config(8).build()
    hertz = torch.tensor([[0.0, 70, 130, 333, 0]])
    assert torch.equal(binned(hertz), binned(scale.decode(scale.encode(hertz))))
    assert not torch.equal(binned(hertz), binned(hertz * 2)) and not torch.equal(numbers(hertz), numbers(hertz * 1.01))


@pytest.mark.parametrize("bias, frames", [(math.log(4), 3), (math.log(4.4), 3), (math.log(4.6), 4), (math.log(1.2), 1), (-9.0, 1)])
def test_a_duration_is_rounded_after_one_is_taken_off_and_never_below_one(bias, frames):
    durations = Durations.Config(12, 16).build().eval()
    with torch.no_grad():
        durations.out.weight.zero_()
        durations.out.bias.fill_(bias)
    assert durations.frames(torch.tensor([[3, 4, 3]])).tolist() == [[frames] * 3]


def test_durations_of_a_row_do_not_depend_on_the_rows_beside_it():
    durations = Durations.Config(12, 16).build().double().eval()
    rows = [torch.randint(0, 12, (n,)) for n in (9, 4, 1)]
    units = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)
    together = durations(units, torch.tensor([9, 4, 1]))
    for row, found in zip(rows, together):
        torch.testing.assert_close(durations(row[None])[0], found[: len(row)])


def test_the_loss_of_durations_is_over_the_runs_that_no_border_cuts():
    durations = Durations.Config(12, 16).build().eval()
    with torch.no_grad():
        durations.out.weight.zero_()
        durations.out.bias.fill_(1.0)
    rows = [torch.tensor([7] * 9 + [1] * 3 + [2] * 1 + [1] * 30), torch.tensor([5] * 8), torch.tensor([3, 3, 4, 4, 6])]
    wanted = np.mean([(1 - math.log(n + 1)) ** 2 for n in (3, 1, 2)])
    assert float(durations.loss(rows)) == pytest.approx(wanted, abs=1e-6)
    alone = durations.loss(rows[1:2])
    assert float(alone) == 0, "a row that is one run tells nothing"


def test_durations_that_follow_from_the_unit_are_learned_exactly():
    durations = Durations.Config(6, 16, dropout=0.0).build()
    optimiser = torch.optim.AdamW(durations.parameters(), lr=1e-2)
    for _ in range(150):
        units = [torch.randint(0, 6, (12,)) for _ in range(8)]
        rows = [row.repeat_interleave(row + 1) for row in map(torch.unique_consecutive, units)]
        optimiser.zero_grad()
        durations.loss(rows).backward()
        optimiser.step()
    units = torch.tensor([[0, 3, 5, 1, 4, 2, 0, 5]])
    assert torch.equal(durations.eval().frames(units)[:, 1:-1], units[:, 1:-1] + 1)


# --- the vocoder


@pytest.mark.parametrize("generator", GENERATORS)
def test_without_pitch_and_voice_it_is_the_vocoder_on_codes(generator):
    plain = CodeHiFiGAN.Config(1, 12, replace(GENERATORS[generator], sourced=False) if generator == "vocos" else HIFI)
    vocoder = built(UnitVocoder.Config(plain))
    codes = torch.randint(0, 12, (2, 1, 9))
    assert torch.equal(vocoder(codes), vocoder.codes(codes))
    assert torch.equal(vocoder(codes[:, 0]), vocoder(codes)), "units [B,T] are one level of codes"
    assert vocoder(codes).shape == (2, 1, 9 * 320)


@pytest.mark.parametrize("frames", [1, 7, 100])
@pytest.mark.parametrize("generator", GENERATORS)
def test_pieces_joined_are_what_is_said_at_once(generator, frames):
    vocoder = built(config(GENERATORS[generator], 2))
    codes, hertz, voice = told(23, n_q=2)
    whole = vocoder(codes, hertz, voice)
    pieces = list(vocoder.pieces(codes, frames, hertz, voice))
    assert len(pieces) == -(-23 // frames)
    torch.testing.assert_close(torch.cat(pieces, -1), whole, atol=1e-4 * float(whole.abs().max()), rtol=0)


@pytest.mark.parametrize("generator", GENERATORS)
def test_a_row_is_said_as_if_it_were_alone(generator):
    vocoder = built(config(GENERATORS[generator]))
    units, hertz, voice = told(rows=3)
    together = vocoder(units, hertz, voice)
    for row in range(3):
        torch.testing.assert_close(vocoder(units[row : row + 1], hertz[row : row + 1], voice[row : row + 1])[0], together[row])


def test_pitch_is_heard_where_it_is_asked_for_and_a_voice_everywhere():
    vocoder = built(config()).double()
    units, hertz, voice = (x.double() if x.is_floating_point() else x for x in told(60, 1))
    reach = vocoder.receptive_field
    higher = hertz.clone()
    higher[:, 50:] *= 1.2
    gap = (vocoder(units, higher, voice) - vocoder(units, hertz, voice)).abs()[0, 0].view(60, 320).amax(1)
    assert (gap[: 50 - reach] == 0).all() and (gap[50 + reach :] > 0).all() and 50 + reach < 60
    other = (vocoder(units, hertz, voice + 1) - vocoder(units, hertz, voice)).abs()[0, 0].view(60, 320).amax(1)
    assert (other > 0).all()


def test_units_without_repetitions_are_said_as_long_as_they_last():
    vocoder = built(config(VOCOS))
    units = torch.tensor([3, 9, 0, 9])
    runs = vocoder.lasting(units)
    voice, hertz = torch.randn(6), torch.full((int(runs.sum()),), 120.0)
    made = vocoder.sound(units, voice, hertz, collapsed=True)
    assert made.shape == (1, int(runs.sum()) * 320)
    assert torch.equal(made, vocoder.sound(units.repeat_interleave(runs), voice, hertz))
    assert torch.equal(made[None], vocoder(units.repeat_interleave(runs)[None], hertz[None], voice[None]))


def test_a_voice_is_a_vector_or_a_recording():
    vocoder, recording = built(config(VOCOS)), 0.1 * torch.randn(1, 16000)
    units, hertz = torch.randint(0, 12, (8,)), torch.full((8,), 120.0)
    vector = vocoder.listen(recording[None])[0]
    assert vector.shape == (6,)
    assert torch.equal(vocoder.sound(units, recording, hertz), vocoder.sound(units, vector, hertz))
    assert not torch.equal(vocoder.sound(units, recording, hertz), vocoder.sound(units, recording.flip(0) * 3, hertz))


def test_an_ear_hears_numbers_about_none():
    """Log-mels lie far below 0; as they are, they would be most of what is heard of any voice."""
    vocoder, heard = config().build().eval(), []
    vocoder.ear.register_forward_pre_hook(lambda ear, given: heard.append(given[0]))
    for loudness in (0.02, 0.1):
        vocoder.listen(loudness * torch.randn(1, 1, 16000))
    assert all(abs(float(mel.mean())) < 1.5 for mel in heard) and not torch.equal(*heard)


UNITS, HERTZ, VECTOR = torch.tensor([1, 2, 3]), torch.full((3,), 99.0), torch.zeros(6)
WRONG = {
    "The pitch has 2 frames, the units have 3": lambda v: v.sound(UNITS, VECTOR, HERTZ[:2]),
    "from 0 to 11, these from 4 to 12": lambda v: v.sound(UNITS * 4, VECTOR, HERTZ),
    "from 0 to 11, these from -1 to 3": lambda v: v.sound(UNITS - 2 * (UNITS == 1), VECTOR, HERTZ),
    "Units go from 0 to 11, these from 4 to 12": lambda v: v.sound(UNITS * 4, VECTOR, HERTZ, collapsed=True),
    "was given no units; it needs": lambda v: v.sound(UNITS[:0], VECTOR, HERTZ[:0]),
    "was given no units": lambda v: v.sound(UNITS[:0], VECTOR, HERTZ, collapsed=True),
    "needs a voice: a vector of 6 numbers or a recording": lambda v: v.sound(UNITS, None, HERTZ),
    "vector of 7 numbers; this vocoder takes 6": lambda v: v.sound(UNITS, torch.zeros(7), HERTZ),
    "needs pitch, Hz in every frame": lambda v: v.sound(UNITS, VECTOR),
    "negative numbers or NaN": lambda v: v.sound(UNITS, VECTOR, HERTZ * math.nan),
    "one row, not": lambda v: v.sound(UNITS[None], VECTOR, HERTZ, collapsed=True),
    "has 0 frames": lambda v: list(v.pieces(UNITS[None], 0, HERTZ[None], VECTOR[None])),
    "takes codes .batch, 1, frames.": lambda v: v(torch.zeros(1, 2, 3, dtype=torch.long), HERTZ[None], VECTOR[None]),
    "was not taught pitch": lambda v: UnitVocoder.Config(v.config.codes).build()(UNITS[None], HERTZ[None]),
    "has one voice": lambda v: UnitVocoder.Config(v.config.codes).build()(UNITS[None], None, VECTOR[None]),
    "has learned no durations": lambda v: UnitVocoder.Config(v.config.codes).build().sound(UNITS, collapsed=True),
    "it takes vectors": lambda v: UnitVocoder.Config(v.config.codes, voice=6).build().sound(UNITS, torch.zeros(1, 9000)),
    "one level; these codes have 2": lambda v: replace(config(n_q=2), durations=Durations.Config(12)).build(),
    "know 9 units, the vocoder 12": lambda v: replace(config(), durations=Durations.Config(9)).build(),
    "source needs pitch": lambda v: replace(config(VOCOS), pitch=None).build(),
    "into 3, which": lambda v: replace(VOCOS, fine=3).build(),
}  # fmt: skip


@pytest.mark.parametrize("says", WRONG)
def test_a_mistake_is_one_sentence(says):
    with pytest.raises(SlmError, match=says):
        WRONG[says](config().build().eval())


@pytest.mark.parametrize("generator", GENERATORS)
def test_what_is_saved_and_loaded_says_the_same_samples(generator, tmp_path):
    vocoder = built(config(GENERATORS[generator]))
    units, hertz, voice = told(12)
    save(vocoder.remove_weight_norm(), tmp_path)
    again = load(tmp_path)
    assert again.config == vocoder.config and not again.training
    assert torch.equal(again(units, hertz, voice), vocoder(units, hertz, voice))
    assert torch.equal(again.lasting(units[0, 0]), vocoder.lasting(units[0, 0]))
    recording = torch.randn(1, 1, 9000)
    assert torch.equal(again.listen(recording), vocoder.listen(recording))


# --- training


def codec() -> torch.nn.Module:
    torch.manual_seed(0)
    return tiny(2).build().eval()


def test_rows_are_a_crop_its_own_units_and_pitch_and_another_recording_of_the_voice():
    of, tokenizer = Resynthesis(batch=3, seconds=0.4, heard=0.6, levels=(0, 2)), codec()
    data = MadeUpResynthesis(of).build({"units": tokenizer})
    for step in range(3):
        batch = data.at(step)
        assert {name: tuple(x.shape) for name, x in batch.items()} == {
            "audio": (3, 1, 6400), "codes": (3, 2, 20), "pitch": (3, 20), "voice": (3, 1, 9600),
        }  # fmt: skip
        for audio, codes, hertz, voice in zip(*batch.values()):
            (i,) = [i for i, clip in enumerate(data.clips) if found(clip, audio) is not None]
            at = found(data.clips[i], audio)
            assert torch.equal(codes, data.clips[i].codes[:, at : at + 20]) and torch.equal(hertz, data.clips[i].hertz[at : at + 20])
            (k,) = [k for k, clip in enumerate(data.clips) if found(clip, voice) is not None]
            assert k != i and data.clips[k].speaker == data.clips[i].speaker
    again = MadeUpResynthesis(of).build({"units": tokenizer}).at(2)
    assert all(torch.equal(again[name], batch[name]) for name in batch)


def found(clip: resynthesis.Clip, audio: torch.Tensor) -> int | None:
    """The frame of a clip at which these samples begin."""
    samples = (audio[0].numpy() * 32768).round().astype(np.int16)
    starts = range(0, len(clip.audio) - len(samples) + 1, 320)
    return next((at // 320 for at in starts if (clip.audio[at : at + len(samples)] == samples).all()), None)


def test_recordings_that_are_too_short_are_left_out():
    clips = MadeUpResynthesis(Resynthesis(seconds=0.4, heard=0.6)).build({"units": codec()}).clips
    lengths = sorted(len(clip.hertz) for clip in clips)
    kept = ResynthesisRows(Resynthesis(seconds=0.4, heard=lengths[5] / 50), clips, codec()).clips
    assert sorted(len(clip.hertz) for clip in kept) == [n for n in lengths if n >= lengths[5]]
    with pytest.raises(SlmError, match="longer than 99"):
        ResynthesisRows(Resynthesis(heard=99), clips, codec())


def test_each_thing_that_is_told_is_learned_from():
    data = MadeUpResynthesis(Resynthesis(batch=2, seconds=0.4, heard=0.6)).build({"units": codec()})
    whole = replace(config(VOCOS), codes=CodeHiFiGAN.Config(1, 16, VOCOS), durations=Durations.Config(16, 16))
    learning = LearningVocoder.Config(whole).build()
    made = learning.reconstruct(data.at(0))
    assert made.real.shape == made.fake.shape == (2, 1, 6400) and set(made.losses) == {"duration"}
    (MultiMel.Config(16000, (512,), (40,)).build()(made.real, made.fake) + made.losses["duration"]).backward()
    still = [name for name, p in learning.named_parameters() if p.grad is None or not p.grad.any()]
    assert [name for name in still if "filter" not in name] == []
    plain = LearningVocoder.Config(UnitVocoder.Config(CodeHiFiGAN.Config(1, 16, HIFI))).build()
    assert plain.reconstruct(data.at(0)).losses == {}, "what the batch has besides is not asked for"
    given = LearningVocoder.Config(replace(whole, voice=6)).build()
    assert given.reconstruct(data.at(0) | {"voice": torch.zeros(2, 6)}).fake.isfinite().all()


@pytest.mark.parametrize("name", ["units, voice, pitch", "units, voice", "three levels"])
def test_a_small_vocoder_of_the_study_trains_and_is_loaded(name, tmp_path):
    module = load_recipe(ROOT / "recipes/study/unitvocoder.py", ("study", "small"))
    train(module.small().variants[name](0, tmp_path), tmp_path, quiet=True)
    vocoder = load(tmp_path / "vocoder")
    voice = torch.randn(1, 16000) if vocoder.speaker else None
    hertz = torch.full((9,), 110.0) if vocoder.pitch else None
    assert vocoder.sound(torch.zeros(vocoder.config.codes.n_q, 9, dtype=torch.long), voice, hertz).isfinite().all()


# --- the study's figures


def rows_of_speech() -> list[study.Row]:
    from slm.data.madeup import utterance

    tokenizer = tiny(1, 12).build().eval()
    sounds = [utterance(0, i % 4 + 10 * (i // 4), 12, 40, 320, 16000)[2] for i in range(8)]
    items = [Item(str(i), f"speaker {i % 4}", f"words of {i}", sound, np.zeros(1)) for i, sound in enumerate(sounds)]
    return [study.read(item, tokenizer, 1) for item in items]


def test_the_study_says_all_its_figures_of_a_vocoder_and_word_errors_are_by_whose_words():
    rows, vocoder = rows_of_speech(), built(config(VOCOS))
    made = study.again(vocoder, rows)
    assert all(sound.shape == row.audio.shape for sound, row in zip(made, rows))
    heard = {sound[0].numpy().tobytes(): row.text for sound, row in zip(made, rows)}
    figures = study.words(rows, made, lambda sound: heard.get(sound.tobytes(), "something else"))
    values = {name: figure.value for name, figure in figures.items()}
    assert values["word errors"] == 0 and values["word errors, another's words"] == pytest.approx(1 / 3)
    assert values["word errors, recording"] > 0.5
    figures = study.lasted(vocoder, rows) | study.heights(vocoder, rows, made)
    figures |= study.voices(vocoder, rows, lambda sound: sound[:99] / (np.linalg.norm(sound[:99]) + 1e-9))
    assert len(figures) == 12 and all(math.isfinite(figure.value) for figure in figures.values())
    with pytest.raises(SlmError, match="2 recordings are of 2 speakers"):
        study.voices(vocoder, rows[:2], lambda sound: sound[:99])


def test_durations_that_are_right_have_no_error_and_one_for_all_has_the_least_it_can():
    rows = rows_of_speech()
    vocoder = built(config(VOCOS))
    known = [torch.unique_consecutive(row.codes[0], return_counts=True)[1] for row in rows]
    in_turn = iter(known)
    vocoder.lasting = lambda units: next(in_turn)
    figures = study.lasted(vocoder, rows)
    runs = torch.cat(known).double()
    assert figures["durations: error"].value == 0
    best = min(float((runs - n).abs().mean()) for n in range(1, 40))
    assert figures["durations: error, their median"].value == pytest.approx(best)
    assert figures["durations: error, their mean"].value == pytest.approx(float((runs - runs.mean().round()).abs().mean()))
    assert figures["durations: squared, their mean"].value == pytest.approx(float((runs + 1).log().var(correction=0)), rel=1e-5)


def test_correlation_and_gap_are_of_frames_that_have_a_pitch_in_both():
    hertz = 100 + 50 * torch.rand(60)
    broken = hertz * 1.2
    broken[::5] = 0
    assert study.correlation(hertz, broken) == pytest.approx(1) and study.gap(hertz, broken) == pytest.approx(math.log(1.2), abs=1e-6)
    assert abs(study.correlation(hertz, hertz.flip(0))) < 0.5
    assert study.correlation(hertz[:5], broken[:5]) == 0 and study.gap(hertz, hertz * 0) == pytest.approx(math.log(2))


def test_a_contour_moved_to_anothers_height_keeps_its_shape():
    one, other = torch.tensor([100.0, 0, 120, 110]), torch.tensor([0.0, 210, 190])
    moved = study.row_at(one, other)
    assert moved[1] == 0 and float(moved[moved > 0].log().mean()) == pytest.approx(float(other[other > 0].log().mean()), abs=1e-5)
    torch.testing.assert_close(moved / moved[0], one / one[0])
    assert torch.equal(study.row_at(one, other * 0), one)
