"""A rendered corpus is what training reads, and its labels are true: the phones that were said, for as many frames as there are."""

import json

import numpy as np
import pytest
import torch

from slm.data import cuts, flite
from slm.data.aligned import read_phones
from slm.data.render import frames, render
from slm.errors import SlmError

needs_flite = pytest.mark.skipif(not flite.present(), reason="flite is not installed: apt install flite")


def test_every_phone_has_a_frame_and_together_they_have_all():
    draw = np.random.default_rng(0)
    for _ in range(200):
        ends = np.cumsum(draw.exponential(0.03, 12))
        total = max(12, int(ends[-1] * 50) + int(draw.integers(-2, 3)))
        found = frames(ends, total)
        assert min(found) >= 1 and sum(found) == total
    assert frames(np.array([0.2, 0.5, 0.6]), 30) == [10, 15, 5]
    with pytest.raises(SlmError, match="do not fit"):
        frames(np.array([0.1, 0.2, 0.3]), 2)


@needs_flite
def test_a_rendered_corpus_is_cuts_and_phones_that_count_the_same_frames(tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("the cat sat.\n\nA big dog, and a fox!\n...\nnine men ran\n" * 4)
    count = render(texts, tmp_path / "fl", 12)
    phones, found = read_phones(tmp_path / "fl"), list(cuts.load(tmp_path / "fl"))
    assert 8 <= count == len(found) == len(phones) < 12, "the line without a word is left out"
    for cut in found:
        samples, rate = cuts.audio_of(cut)
        assert rate == 16_000 and sum(n for _, n in phones[cut.id]) == -(-samples.shape[-1] // 320)
        assert phones[cut.id][0][0] == phones[cut.id][-1][0] == "sil"
        quiet = samples[0, : (phones[cut.id][0][1] - 2) * 320]
        assert quiet.square().mean() < 0.05 * samples.square().mean(), "what is labelled silence is silent"
    assert len({cuts.speaker_of(cut) for cut in found}) > 3
    assert all(row["synthetic"] for row in map(json.loads, (tmp_path / "fl" / "manifest.jsonl").read_text().splitlines()))


@needs_flite
def test_the_same_phones_are_the_same_samples_and_a_vowel_lasts_as_long_as_told():
    said, again = (flite.say_phones(["sil", "M", "AA1", "sil"]) for _ in range(2))
    assert torch.equal(said.audio, again.audio)
    begin, end = (int(said.ends[i] * flite.RATE) for i in (1, 2))
    vowel = said.audio[0, begin:end].square().mean()
    assert vowel > 20 * said.audio[0, : int(said.ends[0] * flite.RATE) - 400].square().mean()


def test_what_cannot_be_rendered_is_one_sentence(tmp_path, monkeypatch):
    with pytest.raises(SlmError, match="no text file"):
        render(tmp_path / "none.txt", tmp_path / "out", 3)
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(SlmError, match="no line"):
        render(tmp_path / "empty.txt", tmp_path / "out", 3)
    with pytest.raises(SlmError, match="already"):
        render(tmp_path / "empty.txt", tmp_path, 3)
    monkeypatch.setattr(flite.shutil, "which", lambda name: None)
    with pytest.raises(SlmError, match="apt install flite"):
        flite.say("hello")
    assert not (tmp_path / "out").exists()


@needs_flite
def test_a_language_made_by_rule_is_said_sentence_by_sentence(tmp_path, monkeypatch):
    from slm.data import dialogues, pseudo, render
    from slm.data.talks import Talks
    from slm_tokenizers.codec import tiny

    monkeypatch.setattr(dialogues, "every", lambda: [("who likes milk", "Anna likes milk"), ("who likes tea", "Anna likes milk")])
    assert render.render_pseudo(tmp_path / "pseudo") == 3, "a sentence that comes twice is said once"
    torch.manual_seed(0)
    tokenizers = {"text": None, "acoustic": tiny(1).build()}
    said = pseudo.spoken(pseudo.Translated(Talks(cache=str(tmp_path / "codes")), str(tmp_path / "pseudo")), tokenizers)
    assert said.keys() == {pseudo.translate(text) for text in ("who likes milk", "Anna likes milk", "who likes tea")}
    assert all(len(units) > 5 and bool((units[1:] != units[:-1]).all()) for units in said.values())
