"""Codecs side by side: bits counted as they are sent, audio in its place, every figure with its interval, and Opus beside them.

N samples, Q levels, T frames.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from slm.data import audio as sound
from slm.errors import SlmError
from slm.evaluate.codec import log_mel_l1
from slm.evaluate.coders import SCALE, Levels
from slm.evaluate.opus import Opus, packets
from slm.evaluate.recordings import recordings
from slm.evaluate.resynthesis import opinion, rebuild, scores
from slm.table import ITSELF, PROMPT, compare, level_of
from slm_tokenizers.codec import Codec
from slm_tokenizers.encodec import Encodec
from slm_tokenizers.stored import save

SMALL = Codec.Config(n_q=3, card=16, dim=8, enc_width=8, enc_high=1, enc_low=1, dec_width=8, dec_low=1, dec_high_width=8, dec_high=1)
STEREO = Encodec.Config(
    rate=4800, channels=2, n_q=4, card=16, dim=8, n_filters=2, ratios=(4, 2), causal=False, norm="time_group_norm", normalize=True,
    chunk_seconds=0.5, overlap=0.01,
)  # fmt: skip


@pytest.fixture(scope="module")
def speech() -> torch.Tensor:
    """[1,N] at 16 kHz"""
    return sound.read(PROMPT)[0]


@pytest.fixture(scope="module")
def codec(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("codec")
    save(SMALL.build(), folder)
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Four short recordings of two speakers, all but the last with a text."""
    folder = tmp_path_factory.mktemp("corpus")
    whole, rate = sound.read(PROMPT)
    rows = []
    for i, (speaker, text) in enumerate([("ann", "one two"), ("bob", "three"), ("libri_40", "four five six"), ("ann", "")]):
        soundfile.write(folder / f"{i}.wav", whole[0, i * 8000 : i * 8000 + 12000].numpy(), rate)
        rows.append(json.dumps({"path": f"{i}.wav", "speaker": speaker, "text": text, "id": f"r{i}"}))
    (folder / "manifest.jsonl").write_text("\n".join(rows))
    return folder


def slm(*arguments):
    from slm.cli import app

    return CliRunner().invoke(app, [str(a) for a in arguments])


def page(laces: list[int], fill: int = 7) -> bytes:
    return b"OggS" + bytes(22) + bytes([len(laces), *laces]) + bytes([fill]) * sum(laces)


def test_packets_are_read_from_their_laces_over_page_borders():
    """Of 255 bytes exactly, of more than a page holds, of none, and an end without an ending."""
    stream = page([19, 255, 0]) + page([255] * 4) + page([40, 0, 255, 3])
    assert packets(stream) == [19, 255, 4 * 255 + 40, 0, 258]
    with pytest.raises(ValueError, match="byte 48"):
        packets(page([20]) + bytes(30))


def test_opus_takes_the_bits_of_its_packets_and_no_more(speech, monkeypatch):
    """Packets and the tables and headers around them are the whole file; only the packets behind the headers are counted."""
    written = []
    monkeypatch.setattr("slm.evaluate.opus.packets", lambda ogg: written.append(ogg) or packets(ogg))
    rebuilt = Opus(8).code(speech)
    (ogg,) = written
    sizes, pages = packets(ogg), ogg.count(b"OggS")
    laces = sum(size // 255 + 1 for size in sizes)
    assert len(ogg) == sum(sizes) + 27 * pages + laces
    assert rebuilt.bits == 8 * sum(sizes[2:]) < 0.85 * 8 * len(ogg)
    frames = speech.shape[-1] / 16_000 / 0.02
    assert frames <= len(sizes) - 2 <= frames + 2
    assert ogg[28 : 28 + sizes[0]].startswith(b"OpusHead") and sizes[0] == 19


@pytest.mark.parametrize("rate", [8_000, 16_000, 48_000])
def test_opus_comes_back_in_its_place(speech, rate):
    """The best shift of what it makes is none, within what its filters smear, and each rate costs about what it says."""
    heard = sound.resample(speech, 16_000, rate)
    taken = []
    for kbps in (6, 8, 12, 16, 64):
        rebuilt = Opus(kbps, rate).code(heard)
        assert rebuilt.audio.shape == heard.shape
        n = 2 * heard.shape[-1]
        spectra = [np.fft.rfft(x[0].numpy(), n) for x in (rebuilt.audio, heard)]
        shift = int(np.fft.irfft(spectra[0] * spectra[1].conj()).argmax())
        smeared = 1 if rate <= 16_000 else 5  # 0.1 ms
        assert min(shift, n - shift) <= (smeared if kbps < 64 else 0), (kbps, shift)
        taken.append(rebuilt.bits / heard.shape[-1] * rate / 1000)
        assert 0.75 * kbps < taken[-1] < 1.25 * kbps
    assert taken == sorted(taken)


def test_opus_beyond_its_means_is_a_sentence(monkeypatch):
    with pytest.raises(SlmError, match="4 kbit/s but libsndfile takes 6 to 256"):
        Opus(4)
    with pytest.raises(SlmError, match="22050 Hz but hears 8000"):
        Opus(6, 22_050)
    monkeypatch.setattr(soundfile, "available_subtypes", lambda container: {"VORBIS": "Vorbis"})
    with pytest.raises(SlmError, match="built without Opus"):
        Opus(6)


def test_a_codec_from_its_first_levels_is_the_codec_told_to_use_them(speech):
    torch.manual_seed(1)
    made, n = SMALL.build().eval(), speech.shape[-1] - 100  # the last frame is not whole
    heard = speech[:, :n]
    for levels in (1, 2, 3):
        rebuilt = Levels(made, levels).code(heard)
        assert torch.equal(rebuilt.audio, made.decode(made.encode(heard[None], levels), n)[0])
        assert rebuilt.bits == levels * 4 * -(-n // 320)
    assert torch.equal(Levels(made).code(heard).audio, rebuilt.audio)
    for levels in (0, 4):
        with pytest.raises(SlmError, match=f"mine has levels 1 to 3, so it cannot be decoded from {levels}"):
            Levels(made, levels, "mine")


def test_a_stereo_codec_in_chunks_is_measured_and_its_loudness_is_paid_for(speech):
    torch.manual_seed(2)
    made = STEREO.build().eval()
    heard = sound.resample(speech, 16_000, 4800)[:, :6001]
    chunks = made.encode_chunks(heard[None].expand(1, 2, -1))
    assert len(chunks) == 3
    for levels in (2, 4):
        rebuilt = Levels(made, levels).code(heard)
        assert rebuilt.bits == sum(levels * 4 * chunk.codes.shape[-1] + SCALE for chunk in chunks)
        kept = [type(c)(c.codes[:, :levels], c.scale) for c in chunks]
        assert torch.allclose(rebuilt.audio, made.decode_chunks(kept, 6001)[0].mean(0, keepdim=True), atol=1e-6)
    found = rebuild(Levels(made), speech[:, :20_000], 16_000)
    assert found[0].shape == (20_000,) and np.isfinite(list(found[1].values())).all()


def test_distances_are_those_of_the_audio_at_16_khz(speech):
    """A coder that changes nothing is at none; one that works at 8 kHz has lost what lies above 4."""

    class Through:
        def __init__(self, rate):
            self.rate = rate

        def code(self, audio):
            from slm.evaluate.coders import Rebuilt

            return Rebuilt(audio, 1000.0)

    same, half = (rebuild(Through(rate), speech, 16_000)[1] for rate in (16_000, 8_000))
    assert same["log-mel L1"] == 0 and same["bits"] == 1000 and same["seconds"] == speech.shape[-1] / 16_000
    lost = sound.resample(sound.resample(speech, 16_000, 8_000), 8_000, 16_000)[:, : speech.shape[-1]]
    assert half["log-mel L1"] == pytest.approx(log_mel_l1(speech[0], lost[0], 16_000)) and half["log-mel L1"] > 0.3


class Echo:
    """Judges that can be checked by hand: the text is always heard as "one two", opinion is 3, and a voice is its loudness."""

    settings = {"recogniser": "echo"}

    @property
    def recogniser(self):
        return self

    encoder = mos = recogniser

    def transcribe(self, audio):
        return "one two"

    def predict(self, audio):
        return 3.0

    def embed(self, audio):
        loud = float(np.sqrt((audio**2).mean()))
        return np.array([loud, 1 - loud])


def test_judges_give_no_word_errors_without_words():
    audio, voice = np.full(16_000, 0.5, np.float32), np.array([1.0, 0.0])
    assert opinion(Echo(), audio, None, None) == opinion(Echo(), audio, "…", None) == {"MOS": 3.0}
    assert opinion(Echo(), audio, "One, three!", voice) == {"MOS": 3.0, "similarity": 0.5, "errors": 1, "words": 2}


def test_scores_pool_words_and_bits_and_average_the_rest():
    each = [
        {"STOI": 0.5, "errors": 1, "words": 1, "bits": 3000.0, "seconds": 1.0},
        {"STOI": 0.9, "errors": 0, "words": 9, "bits": 3000.0, "seconds": 2.0},
        {"MOS": 4.0, "bits": 0.0, "seconds": 3.0},
    ]
    found = scores(each)
    assert {name: (pytest.approx(s.value), s.n) for name, s in found.items()} == {
        "STOI": (0.7, 2), "MOS": (4.0, 1), "WER %": (10.0, 2), "kbit/s": (1.0, 3),
    }  # fmt: skip
    assert (found["STOI"].low, found["STOI"].high) == (0.5, 0.9) and found["WER %"].low == 0 and found["WER %"].high == 100


def test_a_comparison_has_every_coder_and_the_recording_itself(codec, corpus, tmp_path, monkeypatch):
    monkeypatch.setattr("slm.evaluate.judge.load_judges", Echo)
    out = tmp_path / "codecs.json"
    shown = slm("tokenizers", codec, f"{codec}@2", "--opus", "6", "--opus", "12.5", "--data", corpus, "--judges", "--json", out)
    assert shown.exit_code == 0, shown.output
    found = json.loads(out.read_text())
    rows = {row["name"]: row for row in found["rows"]}
    assert list(rows)[:6] == [ITSELF, "default", str(codec), f"{codec}@2", "Opus at 6", "Opus at 12.5"] and "Mimi" in rows
    assert found["recordings"] == 4 and found["settings"]["judges"] == {"recogniser": "echo"} and len(found["each"]) == 4 * 6
    assert rows[str(codec)]["kbps"] == pytest.approx(0.6) and rows[f"{codec}@2"]["kbps"] == pytest.approx(0.4)
    assert rows["Opus at 6"]["kbps"] < 8 < rows["Opus at 12.5"]["kbps"]
    for name in list(rows)[:6]:
        scored = rows[name]["scores"]
        assert scored["WER %"]["n"] == 3 and scored["MOS"]["n"] == 4 and scored["WER %"]["value"] == pytest.approx(100 * 5 / 6)
        assert all(s["low"] <= s["value"] + 1e-9 and s["value"] <= s["high"] + 1e-9 for s in scored.values())
        assert ("similarity" in scored) == ("log-mel L1" in scored) == (name != ITSELF)
    assert rows["Mimi"]["scores"] == {}
    assert "4 recordings, 3 of them with a text" in shown.stdout
    # substituted or inserted: none of "one two", 2 of "three", 3 of "four five six"
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown.stdout.splitlines() if "│" in line]
    itself = next(line for line in lines if line[0] == ITSELF)
    assert itself[1:] == ["-", "83.3", "-", "3.00"], "its own voice is no finding"


def test_recordings_are_found_wherever_they_are_listed(corpus, tmp_path):
    from slm.data.prepare import prepare

    assert [r.text for r in recordings([corpus])] == ["one two", "three", "four five six", None]
    prepare(corpus, tmp_path / "prepared")
    for place in (tmp_path / "prepared", tmp_path / "prepared" / "cuts.jsonl.gz", corpus / "manifest.jsonl"):
        found = recordings([place])
        assert [(r.id, r.text, r.speaker) for r in found] == [(r.id, r.text, r.speaker) for r in recordings([corpus])]
        assert torch.equal(found[1].read()[0], sound.read(corpus / "1.wav")[0])
    alone = recordings([corpus / "1.wav", PROMPT])
    assert [(r.id, r.text) for r in alone] == [("1.wav", None), (PROMPT.name, None)]
    assert [r.id for r in recordings([corpus], ["bob", "ann"])] == ["r0", "r1", "r3"]
    assert [r.id for r in recordings([corpus], ["held-out"])] == ["r2"]
    assert [r.id for r in recordings([corpus], ["held-out", "bob"])] == ["r1", "r2"]
    assert [r.id for r in recordings([corpus], limit=2)] == ["r0", "r2"] and len(recordings([corpus], limit=9)) == 4


def test_a_listed_file_that_is_gone_is_left_out_and_told(corpus, tmp_path):
    (tmp_path / "transcripts.tsv").write_text("1.wav\tthree\ngone.wav\tnothing\n")
    (tmp_path / "1.wav").write_bytes((corpus / "1.wav").read_bytes())
    with pytest.warns(UserWarning, match="gone.wav"):
        assert [r.text for r in recordings([tmp_path])] == ["three"]


def test_a_path_may_name_levels():
    assert level_of("runs/codec@12") == ("runs/codec", 12) and level_of("default") == ("default", None)
    assert level_of("a@b/codec") == ("a@b/codec", None) and level_of("@4") == ("", 4)


def test_what_cannot_be_compared_is_said_before_anything_is_measured(codec, corpus, tmp_path, monkeypatch):
    from slm_tokenizers.semantic.mfcc import Mfcc
    from slm_tokenizers.semantic.units import Units

    Units.Config(Mfcc.Config(), card=4).build().write(tmp_path / "units")
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr("slm.table.hear", lambda *_: pytest.fail("measured"))
    for arguments, said in (
        ([f"{codec}@4"], "has levels 1 to 3, so it cannot be decoded from 4"),
        (["default@9"], "default has levels 1 to 8"),
        ([tmp_path / "units"], "no audio of them"),
        (["--opus", "5.5"], "takes 6 to 256"),
        (["--data", tmp_path / "empty"], "holds no audio"),
        (["--data", corpus, "--speakers", "ann,eve"], "no recording of the speaker 'eve'"),
        (["--data", corpus / "1.wav", "--speakers", "held-out"], "none of the held-out speakers"),
        (["--json", tmp_path / "codecs.txt"], "must end in .json"),
    ):
        done = slm("tokenizers", *arguments)
        assert done.exit_code == 2 and said in done.output, (arguments, done.output)
    monkeypatch.setitem(__import__("sys").modules, "resemblyzer", None)
    done = slm("tokenizers", "--judges")
    assert done.exit_code == 2 and "slm[evaluate]" in done.output


def test_one_recording_has_no_interval(codec):
    compared = compare([str(codec)])
    row = next(row for row in compared.rows if row.name == str(codec))
    assert compared.recordings == 1 and row.scores["STOI" if "STOI" in row.scores else "log-mel L1"].n == 1
    assert ".." not in slm("tokenizers", codec).stdout.replace(str(codec), "")
