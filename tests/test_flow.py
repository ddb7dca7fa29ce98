"""Text that comes bit by bit is spoken as if it had been known: the same pieces, words, phones and samples."""

import random
from pathlib import Path

import pytest
import torch

from slm import recipe
from slm.errors import SlmError
from slm.flow import STRETCH, Stretches, spoken
from slm.speak import load
from slm.train.run import train_recipe
from slm_tokenizers.codec import tiny
from slm_tokenizers.text.phonemes import Phonemes
from slm_tokenizers.text.split import coming, pieces, words

RECIPE = Path(__file__).parent.parent / "recipes" / "speech_lm" / "interleaved.py"
TEXTS = [
    "Dr. Smith paid $3.50 on May 3, 1921 - twice! He said (to no one): the apple, the pear... and the 3rd of them.\n\nThen nothing",
    "   One two three. ... Four? " + "and so on, " * 40 + "until the end of the  day.   ",
    "The old man said 'the'. The",
    "1 2 3 4 5 6 7 8 9 10",
]


def bits(text, seed):
    """The text in bits of one to twelve characters."""
    draw = random.Random(seed)
    while text:
        size = draw.randint(1, 12)
        yield text[:size]
        text = text[size:]


@pytest.fixture(scope="module")
def speaker(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    for stage in recipe.load(RECIPE).small().stages:
        train_recipe(RECIPE, stage, folder, small=True, quiet=True)
    speaker = load(folder)
    speaker.way.lm.config.cap = 5.0  # frames a phone: it has learned nothing, and would not end
    return speaker


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("seed", range(4))
def test_bits_are_cut_where_the_text_is(text, seed):
    for limit in (20, 160):
        assert list(coming(bits(text, seed), limit)) == pieces(text, limit)
        assert list(words(bits(text, seed), limit)) == list(words([text], limit))


@pytest.mark.parametrize("text", TEXTS)
def test_words_lose_nothing_and_end_sentences(text):
    found = list(words([text]))
    assert "".join("".join(word.text.split()) for word in found) == "".join(text.split())
    assert found[-1].last


def test_sentences_end_at_their_marks_and_not_at_titles():
    found = [(word.text, word.last) for word in words(["Mr. Fox ran. Why? On May 3, 1921 (he said)."])]
    assert [text for text, last in found if last] == ["ran.", "Why?", "said)."]
    assert ("May 3, 1921 (he", False) in found, "numbers are read with their neighbours"


@pytest.mark.parametrize("text", ["", " \n", "… —", "😀"])
def test_nothing_to_speak_is_no_word(text):
    assert list(words([text])) == [] == list(coming([text]))


def test_words_have_the_phones_of_their_sentence():
    """Also where a word decides how the one before it is said, and where marks stand."""
    text = Phonemes()
    hard = Path(__file__).parent.parent / "recipes" / "study" / "hard.txt"
    sentences = [line for line in hard.read_text().splitlines() if line.strip()]
    alike = 0
    for sentence in sentences:
        told = list(spoken(words([sentence], 10_000), text))
        if sum(last for _, last in told) == 1:
            alike += torch.equal(torch.cat([phones for phones, _ in told]), text.encode(sentence))
    assert alike >= 0.9 * len(sentences)
    said = [text.decode(phones) for phones, _ in spoken(words(["See the apple, and the man."]), text)]
    assert said == ["sil S IY1", "DH IY0 AE1 P AH0 L sil", "AH0 N D", "DH AH0 M AE1 N sil"]


def test_stretches_sound_as_all_at_once():
    codec = tiny().build().eval()
    codes = torch.randint(16, (3 * STRETCH + 7,), generator=torch.Generator().manual_seed(0))
    sounding = Stretches(codec)
    found = [audio for code in codes.tolist() for audio, _ in sounding.push(code)]
    assert [len(audio) for audio in found] == [STRETCH * codec.hop] * len(found) and len(found) >= 2
    whole = codec.decode(codes[None, None])[0, 0]
    assert (torch.cat([*found, sounding.end()]) - whole).abs().max() <= 1e-5 * whole.abs().max()
    assert not len(sounding.end()), "all has sounded"


@pytest.mark.parametrize("seed", range(3))
def test_the_samples_are_the_same_however_the_text_comes(speaker, tone_voice, seed):
    text = "The birch canoe slid on the smooth planks. Glue the sheet! And so it went, for a while"
    whole = speaker.speak(text, voice=tone_voice, seed=seed)
    streamed = list(speaker.stream(bits(text, seed), voice=tone_voice, seed=seed))
    assert torch.equal(torch.cat([piece.audio for piece in streamed]), whole.audio) and len(whole.audio)


def test_speech_begins_before_its_text_is_complete(speaker, tone_voice):
    known = []

    def text():
        for word in ("The birch canoe slid on the smooth planks, " * 4).split(" "):
            known.append(word)
            yield word + " "

    stream = speaker.stream(text(), voice=tone_voice)
    first = next(piece for piece in stream if len(piece.audio))
    assert len(known) < 20, f"{len(first.audio)} samples were heard after {len(known)} words"
    list(stream)
    assert len(known) == 33


def test_another_model_speaks_a_piece_as_soon_as_the_text_is_longer(tone_voice):
    text, known = "The birch canoe slid on the smooth planks. " * 8, []

    def written():
        for bit in bits(text, 0):
            known.append(bit)
            yield bit

    speaker = load("default")
    stream = speaker.stream(written(), seed=1)
    first = next(stream)
    assert len("".join(known)) < 200
    assert torch.equal(first.audio, next(speaker.stream(text, seed=1)).audio)


def test_bad_text_gets_a_sentence(speaker, tone_voice):
    with pytest.raises(SlmError, match="nothing to speak"):
        speaker.speak("…", voice=tone_voice)
    with pytest.raises(SlmError, match="nothing to speak"):
        list(speaker.stream(iter(["", " "]), voice=tone_voice))
    with pytest.raises(SlmError, match="at most"):
        list(speaker.stream(iter(["One. ", "word " * 30_000]), voice=tone_voice))
