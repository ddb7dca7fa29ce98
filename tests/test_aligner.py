"""An aligner is what `slm align` learned: it finds again what that wrote, better than a guess, and a voice as training is told of it."""

import json

import numpy as np
import pytest
import torch

from slm import recipe
from slm.data import aligning, audio, cuts
from slm.data.aligned import Aligned, read_phones
from slm.data.madeup import tone
from slm.data.prepare import prepare
from slm.data.prosody import Melody, PitchBins
from slm.errors import SlmError
from slm.prompt import aligned
from slm.train.loop import Train
from slm.train.run import train_stage
from slm_tokenizers import load, stored
from slm_tokenizers.codec import tiny
from slm_tokenizers.kmeansmel import KMeansMel
from slm_tokenizers.semantic.units import Units
from slm_tokenizers.text.align import CLASS, plain, rough, states
from slm_tokenizers.text.aligner import Aligner, features
from slm_tokenizers.text.phonemes import IDS, SYMBOLS, Phonemes, dictionary

WORDS = [word for word in sorted(dictionary()) if len(word) == 4 and word.isalpha()]
RALLE = "recipes/zero_shot/ralle.py"


def said(seed: int, words: int = 6, pause: int = 14) -> tuple[str, list[tuple[str, int]], torch.Tensor]:
    """A text, its phones and their frames (pauses among them that the text does not show), and audio [1,N] in which each class hums."""
    draw = np.random.default_rng(seed)
    text = " ".join(draw.choice(WORDS, words))
    phones = [("sil", int(draw.integers(6, pause)))]
    for _, spoken in Phonemes().words(text)[1:-1]:
        phones += [(symbol, int(draw.integers(3, 12))) for symbol in spoken]
        phones += [("sil", int(draw.integers(6, pause)))] if draw.random() < 0.3 else []
    if phones[-1][0] != "sil":
        phones += [("sil", 6)]
    hums = [tone(CLASS[plain(symbol)], frames, 80 + 12 * CLASS[plain(symbol)], 320, 16000, draw) for symbol, frames in phones]
    return text, phones, torch.from_numpy(np.concatenate(hums))[None]


def units(card: int = 4) -> Units:
    torch.manual_seed(0)
    return Units.Config(Aligner.Config(bands=20, width=8), card=card).build()


def test_what_it_tells_phones_from_makes_units_one_a_frame_and_a_row_alone(tmp_path):
    heard, rows = units(), [said(i)[2] for i in range(3)]
    hidden = heard.source.layer(rows[0][None], torch.tensor([rows[0].shape[1]]))
    scores = heard.source.classifier.out(hidden.x.transpose(1, 2)).argmax(1)
    assert torch.equal(scores[:, None], heard.source.encode(rows[0][None])), "the classes are told from it"
    heard.fit(type("Data", (), {"at": lambda self, step: {"audio": rows}})(), Train(steps=1))
    together = heard.encode(rows)
    for row, codes in zip(rows, together):
        alone = heard.encode(row[None])[0]
        assert alone.shape[1] == -(-row.shape[1] // 320) and torch.equal(codes[:, : alone.shape[1]], alone)
        assert (codes[:, alone.shape[1] :] == -1).all()
    assert together.max() == 3
    heard.write(tmp_path)
    assert torch.equal(load(tmp_path).encode(rows), together)
    with pytest.raises(SlmError, match="layer 0"):
        heard.source.layer(rows[0][None], torch.tensor([9999]), 1)


def classes(phones) -> np.ndarray:
    return np.array([CLASS[plain(symbol)] for symbol, frames in phones for _ in range(frames)])


def named(ids: torch.Tensor, frames: torch.Tensor) -> list[tuple[str, int]]:
    return [(SYMBOLS[i], n) for i, n in zip(ids.tolist(), frames.tolist())]


def untrained(seed: int = 0) -> Aligner:
    torch.manual_seed(seed)
    return Aligner.Config(bands=20, width=8).build()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """data/speech, prepared and aligned in one short round, and data/aligner."""
    import soundfile

    home = tmp_path_factory.mktemp("data")
    (home / "raw").mkdir()
    for i in range(6):
        text, _, samples = said(100 + i, words=3)
        soundfile.write(home / f"raw/{i}.wav", np.pad(samples[0].numpy(), (0, 37 * i)), 16000)
        (home / f"raw/{i}.txt").write_text(text)
    prepare(home / "raw", home / "speech")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aligning.fit, "__defaults__", (0, ((1, 1e-3),)))
        assert aligning.align_folders([home / "speech"]) == 6
    return home


def test_what_slm_align_wrote_is_what_its_aligner_finds(corpus):
    aligner, wrote = load(corpus / "aligner"), read_phones(corpus / "speech")
    assert len(wrote) == 6
    assert any((weight != weight.bfloat16()).any() for weight in aligner.parameters()), "nothing was rounded"
    for cut in cuts.load(corpus / "speech"):
        samples, rate = cuts.audio_of(cut)
        found = named(*aligner.align(samples, cuts.text_of(cut)))
        assert rate == 16000 and [list(phone) for phone in found] == wrote[cut.id]


def test_a_corpus_is_aligned_by_an_aligner_that_learned_elsewhere(corpus, tmp_path):
    before = {path: path.read_bytes() for path in (corpus / "aligner").iterdir()}
    prepare(corpus / "raw", tmp_path / "later")
    assert aligning.align_folders([tmp_path / "later"], by=corpus / "aligner") == 6
    assert list(read_phones(tmp_path / "later").values()) == list(read_phones(corpus / "speech").values())
    assert not (tmp_path / "aligner").exists() and {path: path.read_bytes() for path in before} == before
    stored.save(tiny().build(), tmp_path / "codec")
    with pytest.raises(SlmError, match="no aligner"):
        aligning.align_folders([tmp_path / "later"], by=tmp_path / "codec")


def test_a_trained_aligner_finds_phones_in_speech_it_has_not_heard():
    torch.manual_seed(0)
    aligner, rows = Aligner.Config(bands=40, width=48).build(), [said(i, words=4) for i in range(60)]
    heard = [features(samples[0], 40) for _, _, samples in rows]
    words = [Phonemes().words(text) for text, _, _ in rows]
    labels = [torch.from_numpy(rough(*states(w), [], len(f), loud.numpy())) for w, (f, loud) in zip(words, heard)]
    aligning.fit(aligner, [f for f, _ in heard], words, labels, rounds=((8, 4e-3), (8, 3e-3), (8, 1e-3)))
    right, guessed, alone = [], [], []
    for text, phones, samples in (said(1000 + i, words=4) for i in range(6)):
        true, ids = classes(phones), Phonemes().encode(text)
        right.append(np.mean(classes(named(*aligner.align(samples, text))) == true))
        guessed.append(np.mean(classes([(SYMBOLS[ids[len(ids) * t // len(true)]], 1) for t in range(len(true))]) == true))
        alone.append(np.mean(aligner.encode(samples[None])[0, 0].numpy() == true))
    assert np.mean(right) > 0.75 > 0.6 > np.mean(guessed), "better than equal shares, which it began with"
    assert np.mean(alone) > 0.65, "without a text it hears classes too"


@pytest.mark.parametrize("more", [0, 1, 319])
def test_frames_sum_to_those_of_the_audio_and_no_phone_of_the_text_is_lost(more):
    text, _, samples = said(3)
    samples = torch.nn.functional.pad(samples, (0, more))
    ids, frames = untrained().align(samples, text)
    assert frames.sum() == -(-samples.shape[-1] // 320) and (frames > 0).all() and ids.dtype == frames.dtype == torch.long
    spoken = [phone for _, phones in Phonemes().words(text) for phone in phones if phone != "sil"]
    assert [SYMBOLS[i] for i in ids if i != IDS["sil"]] == spoken


def test_a_stored_aligner_is_the_same_to_the_last_bit(tmp_path):
    aligner = untrained()
    aligner.prior.copy_(torch.randn(aligner.card, dtype=torch.double, generator=torch.Generator().manual_seed(1)).log_softmax(0))
    stored.save(aligner, tmp_path / "aligner", exact=True)
    again = load(tmp_path / "aligner")
    assert again.config == aligner.config and not again.training
    for name, tensor in aligner.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor) and again.state_dict()[name].dtype == tensor.dtype
    text, _, samples = said(4)
    assert named(*again.align(samples, text)) == named(*aligner.align(samples, text))
    assert named(*untrained(1).align(samples, text)) != named(*aligner.align(samples, text)), "another network finds other times"


def test_classes_of_a_batch_are_those_of_its_rows():
    rows = torch.stack([said(seed)[2][:, :16000] for seed in range(3)])
    aligner = untrained()
    together = aligner.encode(rows)
    assert together.shape == (3, 1, 50) and together.max() < aligner.card
    assert all(torch.equal(aligner.encode(rows[i : i + 1])[0], together[i]) for i in range(3))


@pytest.mark.parametrize(
    "samples, text, message",
    [
        (torch.zeros(1, 3200), "a text that takes longer than that", "0.20 s of audio cannot hold the 24 phones"),
        (torch.zeros(1, 16000), "?!", "nothing to speak"),
        (torch.zeros(1, 0), "a", "0 samples"),
        (torch.zeros(2, 16000), "a", "2 channels"),
        (torch.full((1, 16000), float("nan")), "a", "NaN"),
    ],
)
def test_what_cannot_be_aligned_is_one_sentence(samples, text, message):
    with pytest.raises(SlmError, match=message):
        untrained().align(samples, text)


def test_a_config_of_no_width_is_refused():
    with pytest.raises(SlmError, match="width = 0"):
        Aligner.Config(width=0).build()


def test_a_voice_is_heard_as_training_is_told_of_it(corpus, tmp_path):
    """Phones, frames, codes and pitches of a prompt are those of `Aligned` and `Melody`, a long pause cut short among them."""
    import soundfile

    text, _, samples = said(7, pause=200)
    samples = samples[:, : samples.shape[-1] // 320 * 320]
    (tmp_path / "raw").mkdir()
    soundfile.write(tmp_path / "raw/a.wav", samples[0].numpy(), 16000, subtype="FLOAT")
    (tmp_path / "raw/a.txt").write_text(text)
    prepare(tmp_path / "raw", tmp_path / "speech")
    (cut,) = cuts.load(tmp_path / "speech")
    torch.manual_seed(0)
    aligner, bins, codec = load(corpus / "aligner"), PitchBins.Config().build(), tiny().build().eval()
    found = named(*aligner.align(audio.resample(*cuts.audio_of(cut), 16000), text))
    (tmp_path / "speech/phones.jsonl").write_text(json.dumps({"id": cut.id, "phones": found}) + "\n")
    folders, cache = (str(tmp_path / "speech"),), str(tmp_path / "cache")
    (told,) = Aligned(folders, cache=cache).build({"acoustic": codec, "text": Phonemes()}).batches.items
    prompt = aligned(codec, aligner, bins, samples, text)
    assert max(frames for _, frames in found) > Aligned.longest == int(told.duration.max()), "a pause was long"
    assert torch.equal(prompt.phones, told.text) and torch.equal(prompt.prosody["duration"], told.duration)
    assert torch.equal(prompt.codes, told.codes) and prompt.codes.shape[1] == prompt.prosody["duration"].sum()
    assert torch.equal(prompt.prosody["pitch"], Melody(folders, cache).of([told], bins)[told.id])
    assert len(set(prompt.prosody["pitch"].tolist())) > 3


def test_a_codec_of_other_frames_than_durations_are_told_in_is_an_error():
    text, _, samples = said(8)
    codec = KMeansMel.Config(stack=3, card=4).build()
    with pytest.raises(SlmError, match="of 20 ms"):
        aligned(codec, untrained(), None, samples, text)


def test_training_needs_no_aligner_and_learns_the_same_without(tmp_path):
    for name in ("with", "without"):
        small = recipe.load(RALLE).small()
        if name == "without":
            small.tokenizers["aligner"] = str(tmp_path / "nowhere")
        train_stage(small, "ar", tmp_path / name, quiet=True)
    assert (tmp_path / "with/aligner/model.safetensors").exists() and not (tmp_path / "without/aligner").exists()
    first, second = ((tmp_path / name / "ar.safetensors").read_bytes() for name in ("with", "without"))
    assert first == second
