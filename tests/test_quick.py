"""Recordings played at other speeds: what is heard lasts as long as its phones, is another speaker's, and is cached apart."""

import json

import pytest
import soundfile
import torch

from slm.data.aligned import Aligned
from slm.data.madeup import utterance
from slm.data.prepare import prepare
from slm.data.quick import Quick
from slm_tokenizers.codec import tiny
from slm_tokenizers.text.phonemes import Phonemes


@pytest.fixture
def built():
    torch.manual_seed(0)
    codec = tiny(card=64).build().eval()
    torch.nn.init.normal_(codec.codebooks.embed)
    return {"acoustic": codec, "text": Phonemes.Config().build()}


@pytest.mark.parametrize(("speed", "rate"), [(1.0, 16000), (0.9, 17600), (1.1, 14400), (1.25, 12800)])
def test_what_is_heard_is_as_much_shorter(built, speed, rate):
    quick = Quick(built["acoustic"], speed)
    assert quick.rate == rate
    duration = torch.tensor([3, 1, 1, 1, 9, 40, 1, 1, 2])
    heard = quick.lasting(duration)
    assert heard.min() >= 1 and heard.dtype == torch.long and abs(int(heard.sum()) - int(duration.sum()) * rate / 16000) <= 1
    assert torch.equal(heard, duration) == (speed == 1)


def test_a_phone_of_one_frame_stays_when_all_are_short(built):
    assert torch.equal(Quick(built["acoustic"], 1.25).lasting(torch.ones(6, dtype=torch.long)), torch.ones(6, dtype=torch.long))


def test_every_speed_is_another_speaker_of_other_codes(built, tmp_path):
    source, folder = tmp_path / "speech", tmp_path / "prepared"
    source.mkdir()
    symbols, rows, manifest = built["text"].symbols, [], []
    for i in range(4):
        text, duration, audio = utterance(i, i % 2, 20, 39, 320, 16000)
        soundfile.write(source / f"{i}.wav", audio[0].numpy(), 16000)
        manifest.append({"id": str(i), "path": f"{i}.wav", "text": "made up", "speaker": f"s{i % 2}"})
        rows.append({"id": str(i), "phones": [[symbols[int(s)], int(n)] for s, n in zip(text, duration)]})
    (source / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in manifest))
    prepare(source, folder)
    (folder / "phones.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = Aligned((str(folder),), cache=str(tmp_path / "codes"), speeds=(1.0, 0.9, 1.1), sound=True, rough=0.5)
    items = config.build(built).batches.items
    plain = Aligned((str(folder),), cache=str(tmp_path / "codes")).build(built).batches.items
    assert len(items) == 12 and sorted(i.id for i in plain) == ["0", "1", "2", "3"]
    assert {i.speaker for i in items} == {f"s{n}{mark}" for n in range(2) for mark in ("", " x0.909", " x1.111")}
    for item in items:
        assert item.duration.sum() == item.codes.shape[1] == item.sound.shape[1] == item.rough.shape[1]
        of = next(p for p in plain if p.id == item.id.split()[0])
        assert torch.equal(of.codes, item.codes) == (item.id == of.id)
        ratio = {1: 1.0}.get(len(item.id.split()), 1 / float(item.id.split("x")[-1]) if "x" in item.id else 1.0)
        assert abs(item.codes.shape[1] - of.codes.shape[1] * ratio) <= 2
