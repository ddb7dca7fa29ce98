"""Files in, batches out: every layout is read, bad files are reported and never fatal, and step k has one batch whoever asks."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from slm.data import audio, batch, cache, corpus, cuts, prepare
from slm.data.batches import Batches
from slm.data.crops import Crops
from slm.data.sounds import Sounds
from slm.errors import SlmError

ROOT = Path(__file__).resolve().parents[1]
RATE = 16000


def tone(seconds: float = 0.5, hz: float = 220.0, rate: int = RATE) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def save(path, samples=None, rate: int = RATE):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, tone() if samples is None else samples, rate)
    return path


def prepared(source, out, **options):
    done = prepare.prepare(source, out, **options)
    return done, {cut.id: cut for cut in cuts.load(done.path)}


# one file


def test_a_written_file_reads_back_with_its_mark(tmp_path):
    for name in ("a.wav", "a.flac"):
        audio.write(tmp_path / name, torch.from_numpy(tone())[None], RATE, comment=f"{audio.SYNTHETIC} speech")
        sound, rate = audio.read(tmp_path / name)
        assert (sound.shape, sound.dtype, rate) == ((1, 8000), torch.float32, RATE)
        assert torch.allclose(sound[0], torch.from_numpy(tone()), atol=2 / 32768)
        assert audio.comment(tmp_path / name) == "synthetic speech"
        assert soundfile.info(tmp_path / name).subtype == "PCM_16"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.flac", "a.wav"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    audio.write(tmp_path / "a.wav", torch.from_numpy(tone()), RATE)
    before = (tmp_path / "a.wav").read_bytes()
    for wrong in (torch.full((1, 100), torch.nan), torch.zeros(2, 100), torch.zeros(1, 0)):
        with pytest.raises(SlmError):
            audio.write(tmp_path / "a.wav", wrong, RATE)
    with pytest.raises(RuntimeError), audio.replacing(tmp_path / "a.wav") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"] and (tmp_path / "a.wav").read_bytes() == before


def test_loud_audio_is_clipped_not_wrapped(tmp_path):
    audio.write(tmp_path / "a.wav", torch.tensor([[2.0, -2.0, 0.5] * 2000]), RATE)
    assert torch.allclose(audio.read(tmp_path / "a.wav")[0][0, :3], torch.tensor([1.0, -1.0, 0.5]), atol=1e-3)


def test_stereo_at_96_khz_becomes_mono_at_the_rate_asked_for(tmp_path):
    left, right = tone(1, 220, 96000), tone(1, 440, 96000)
    sound, rate = audio.read(save(tmp_path / "a.wav", np.stack([left, right], 1), 96000))
    assert rate == 96000 and torch.allclose(sound[0], torch.from_numpy(left + right) / 2, atol=1e-4)
    low = audio.resample(sound, rate, 24000)
    assert low.shape == (1, 24000)
    expected = torch.from_numpy(tone(1, 220, 24000) + tone(1, 440, 24000)) / 2
    assert torch.allclose(low[0, 100:-100], expected[100:-100], atol=1e-3)


def test_part_of_a_file_is_that_part(tmp_path):
    ramp = np.linspace(-0.9, 0.9, RATE, dtype=np.float32)
    sound, _ = audio.read(save(tmp_path / "a.wav", ramp), start=0.25, seconds=0.5)
    assert torch.allclose(sound[0], torch.from_numpy(ramp[4000:12000]), atol=1e-4)


def bad_files(folder):
    """name -> what its error must say"""
    folder.mkdir(exist_ok=True)
    (folder / "text.wav").write_text("this is not audio")
    (folder / "empty.wav").touch()
    save(folder / "headeronly.wav", np.zeros(0, np.float32))
    save(folder / "short.wav", tone(0.05))
    holes = tone()
    holes[100] = np.nan
    soundfile.write(folder / "nan.wav", holes, RATE, subtype="FLOAT")
    soundfile.write(folder / "inf.wav", np.where(np.isnan(holes), np.inf, holes), RATE, subtype="FLOAT")
    whole = save(folder / "cut.flac").read_bytes()
    (folder / "cut.flac").write_bytes(whole[:20])
    whole = save(folder / "cut.mp3", tone(3)).read_bytes()
    (folder / "cut.mp3").write_bytes(whole[: len(whole) // 2])
    return {
        "text.wav": "cannot be read as audio",
        "empty.wav": "is empty",
        "headeronly.wav": "no audio samples",
        "short.wav": "lasts 0.050 s, but at least 0.1 s",
        "nan.wav": "NaN or infinite",
        "inf.wav": "NaN or infinite",
        "cut.flac": "cannot be read as audio",
        "cut.mp3": "is damaged: it ends after",
    }


def test_a_bad_file_is_one_sentence(tmp_path):
    (tmp_path / "a.raw").write_text("no header")
    (tmp_path / "folder").mkdir()
    expected = bad_files(tmp_path) | {"nothing.wav": "There is no file", "folder": "is a folder", "a.raw": "cannot be read as audio"}
    for name, words in expected.items():
        with pytest.raises(SlmError, match=words) as error:
            audio.read(tmp_path / name)
        message = str(error.value)
        assert name in message and "\n" not in message and message.endswith(".")


def test_rates_without_a_common_divisor_are_refused_before_memory_runs_out():
    with pytest.raises(SlmError, match="common divisor"):
        audio.resample(torch.zeros(1, 100), 44101, 23999)
    assert audio.resample(torch.zeros(1, 11025), 11025, 16000).shape == (1, 16000)


# corpora


def test_folder_with_a_text_beside_each_file(tmp_path):
    save(tmp_path / "in/ann/a.wav")
    (tmp_path / "in/ann/a.txt").write_text("\ufeffHello – there.\n", encoding="utf-8")
    save(tmp_path / "in/b.flac", np.stack([tone(), tone()], 1), 48000)
    done, found = prepared(tmp_path / "in", tmp_path / "out")
    assert done.n == 2 and done.with_text == 1 and done.speakers == {"ann"} and not done.skipped
    assert cuts.text_of(found["ann/a"]) == "Hello – there." and cuts.speaker_of(found["ann/a"]) == "ann"
    assert cuts.text_of(found["b"]) == "" and cuts.speaker_of(found["b"]) is None
    sound, rate = cuts.audio_of(found["b"])
    assert sound.shape == (1, 8000) and rate == 48000 and found["b"].sampling_rate == 48000


@pytest.mark.parametrize(
    "name, table",
    [
        (
            "transcripts.tsv",
            "path\ttext\tspeaker\tlicence\tsynthetic\n"
            'x/a.wav\tSay "hi", now\tann\tCC0\tfalse\nb.wav\tTwo\tbob\t\ttrue\ngone.wav\tX\tann\t\t\n',
        ),
        (
            "transcripts.csv",
            'file,text,speaker,licence,synthetic\na,"Say ""hi"", now",ann,CC0,false\nb.wav,Two,bob,,true\ngone.wav,X,ann,,\n',
        ),
        ("transcripts.csv", 'a.wav,"Say ""hi"", now"\nb.wav,Two\ngone.wav,X\n'),
    ],
)
def test_folder_with_a_table_of_transcripts(tmp_path, name, table):
    save(tmp_path / "in/x/a.wav")
    save(tmp_path / "in/b.wav")
    (tmp_path / "in" / name).write_text(table)
    done, found = prepared(tmp_path / "in", tmp_path / "out")
    assert cuts.text_of(found["x/a"]) == 'Say "hi", now' and cuts.text_of(found["b"]) == "Two"
    assert len(done.skipped) == 1 and "gone.wav" in done.skipped[0].reason
    if "speaker" in table:
        assert cuts.speaker_of(found["x/a"]) == "ann" and found["x/a"].custom["licence"] == "CC0"
        assert [found[i].custom["synthetic"] for i in ("x/a", "b")] == [False, True]


def test_ljspeech_layout(tmp_path):
    save(tmp_path / "LJ/wavs/LJ001-0001.wav")
    save(tmp_path / "LJ/wavs/LJ001-0002.wav")
    lines = ['LJ001-0001|In 1455, "x|In fourteen fifty-five, "x', "LJ001-0002|Plain", "LJ001-0003|Gone|Gone", "nonsense"]
    (tmp_path / "LJ/metadata.csv").write_text("\n".join(lines) + "\n")
    done, found = prepared(tmp_path / "LJ", tmp_path / "out")
    assert {name: cuts.text_of(cut) for name, cut in found.items()} == {"LJ001-0001": 'In fourteen fifty-five, "x', "LJ001-0002": "Plain"}
    assert done.speakers == {"LJ"} and len(done.skipped) == 2


def test_librispeech_layout(tmp_path):
    save(tmp_path / "in/103/1240/103-1240-0000.flac")
    save(tmp_path / "in/84/7/84-7-0001.flac")
    (tmp_path / "in/103/1240/103-1240.trans.txt").write_text("103-1240-0000 CHAPTER ONE\n103-1240-0001 GONE\n")
    (tmp_path / "in/84/7/84-7.trans.txt").write_text("84-7-0001 HELLO\n")
    done, found = prepared(tmp_path / "in", tmp_path / "out")
    assert {name: (cuts.text_of(cut), cuts.speaker_of(cut)) for name, cut in found.items()} == {
        "103-1240-0000": ("CHAPTER ONE", "103"),
        "84-7-0001": ("HELLO", "84"),
    }
    assert len(done.skipped) == 1


def test_manifest_layout_keeps_licence_source_and_whatever_else_is_known(tmp_path):
    save(tmp_path / "in/audio/a.wav")
    save(tmp_path / "in/audio/b.wav")
    first = {
        "path": "audio/a.wav", "text": "Line\u2028break", "speaker": 7, "duration": 0.5, "licence": "CC0-1.0", "source": "studio",
        "gender": "f", "synthetic": True, "voices": {"x": 0.7}, "lang": "de", "phones": "laɪn",
    }  # fmt: skip
    others = [{"path": "audio/b.wav", "source": "sharealike"}, {"path": "audio/b.wav", "duration": 0.9}]
    lines = [json.dumps(first, ensure_ascii=False), *map(json.dumps, others), "{broken", '{"text": "no path"}', "[1]"]
    (tmp_path / "in/manifest.jsonl").write_text("\n".join(lines) + "\n\n", encoding="utf-8")
    done, found = prepared(tmp_path / "in", tmp_path / "out", exclude_sources=["sharealike"])
    cut = found["audio/a"]
    assert list(found) == ["audio/a"] and done.excluded == {"sharealike": 1} and len(done.skipped) == 4
    assert (cut.duration, cuts.text_of(cut), cuts.speaker_of(cut), cut.supervisions[0].language) == (0.5, "Line\u2028break", "7", "de")
    custom = {"licence": "CC0-1.0", "source": "studio", "gender": "f", "synthetic": True, "voices": {"x": 0.7}, "phones": "laɪn"}
    assert {name: cut.custom[name] for name in custom} == custom
    assert done.hours_of == {("studio", "CC0-1.0", "synthetic"): 0.5 / 3600}


def test_bad_files_are_reported_and_the_good_ones_kept(tmp_path, capsys):
    expected = bad_files(tmp_path / "in")
    save(tmp_path / "in/good.wav")
    save(tmp_path / "in/good.flac")  # the same id
    save(tmp_path / "in/silent.wav", np.zeros(RATE, np.float32))
    (tmp_path / "in/good.txt").write_bytes(b"caf\xe9")
    save(tmp_path / "in/fine.wav")
    done, found = prepared(tmp_path / "in", tmp_path / "out")
    assert list(found) == ["fine"]
    reasons = {line["path"].rsplit("/")[-1]: line["reason"] for line in map(json.loads, open(tmp_path / "out/skipped.jsonl"))}
    expected |= {"silent.wav": "is silent", "good.wav": "UTF-8", "good.flac": "UTF-8"}
    assert reasons.keys() == expected.keys() and all(words in reasons[name] for name, words in expected.items())
    assert "1 clips" in capsys.readouterr().out


def test_an_id_used_twice_is_reported(tmp_path):
    save(tmp_path / "in/a.wav")
    save(tmp_path / "in/a.flac")
    done, found = prepared(tmp_path / "in", tmp_path / "out")
    assert list(found) == ["a"] and "taken" in done.skipped[0].reason


def test_nothing_usable_is_an_error_and_no_manifest(tmp_path):
    bad_files(tmp_path / "in")
    with pytest.raises(SlmError, match="Nothing"):
        prepare.prepare(tmp_path / "in", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["skipped.jsonl"]
    for source, layout in (("nowhere", "auto"), ("in", "cassette"), ("in", "ljspeech"), ("in", "librispeech"), ("in", "manifest")):
        with pytest.raises(SlmError):
            prepare.prepare(tmp_path / source, tmp_path / "out", layout=layout)


def test_preparing_twice_gives_the_same_bytes(tmp_path):
    save(tmp_path / "in/a.wav")
    first = prepare.prepare(tmp_path / "in", tmp_path / "one").path.read_bytes()
    assert first[4:8] == bytes(4), "the header holds a time"
    assert first == prepare.prepare(tmp_path / "in", tmp_path / "two").path.read_bytes()


def test_a_damaged_manifest_is_one_sentence(tmp_path):
    save(tmp_path / "in/a.wav")
    path = prepare.prepare(tmp_path / "in", tmp_path / "out").path
    path.write_bytes(path.read_bytes()[:-40])
    (tmp_path / "text.jsonl").write_text("hello\n")
    (tmp_path / "other.jsonl").write_text('{"id": "a"}\n')
    for wrong in (path, tmp_path / "text.jsonl", tmp_path / "other.jsonl", tmp_path / "nothing"):
        with pytest.raises(SlmError, match="manifest"):
            cuts.load(wrong)


def test_a_cut_out_of_a_recording_reads_as_lhotse_reads_it(tmp_path):
    stereo = np.stack([tone(1), tone(1, 440)], 1)
    for name, samples in (("one", tone(1)), ("two", stereo)):
        save(tmp_path / f"{name}/a.wav", samples)
        _, found = prepared(tmp_path / name, tmp_path / f"{name}-out")
        part = found["a"].truncate(offset=0.25, duration=0.5)
        for cut in (found["a"], part, part.resample(8000)):
            sound, rate = cuts.audio_of(cut)
            assert rate == cut.sampling_rate
            assert torch.allclose(sound, torch.from_numpy(cut.load_audio()).mean(0, keepdim=True), atol=1e-4)


# batches


def lengths(count: int = 2000, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).lognormal(5.5, 0.6, count).clip(20, 1500).astype(int).tolist()


def made(seed: int = 3, count: int = 2000, **options) -> Batches:
    items = list(enumerate(lengths(count)))
    return Batches(items, cost=lambda item: item[1], budget=8000, seed=seed, **options)


def test_every_item_comes_once_an_epoch():
    plan = made()
    for epoch in range(3):
        seen = [item for step in range(epoch * len(plan), (epoch + 1) * len(plan)) for item in plan.at(step)]
        assert sorted(seen) == list(enumerate(lengths()))


@pytest.mark.parametrize("count", [1, 2, 7, 100, 2000])
@pytest.mark.parametrize("rows", [None, 5])
def test_no_batch_is_empty_or_above_the_budget(count, rows):
    plan = made(count=count, rows=rows)
    for step in range(2 * len(plan)):
        costs = [cost for _, cost in plan.at(step)]
        assert costs and max(costs) * len(costs) <= 8000 and len(costs) <= (rows or count)


def test_less_than_a_fifth_is_padding_and_batches_are_nearly_full():
    plan = made()
    costs = [[cost for _, cost in plan.at(step)] for step in range(len(plan))]
    padded = sum(max(row) * len(row) for row in costs)
    assert padded < 1.2 * sum(lengths()), "more than a fifth is padding"
    assert padded > 0.8 * 8000 * len(plan), "batches leave much of the budget unused"


def test_a_row_is_never_padded_to_more_than_twice_its_length():
    plan = Batches([10] * 3 + [1] * 50, cost=float, budget=100, seed=0)
    for step in range(len(plan)):
        assert max(plan.at(step)) <= 2 * min(plan.at(step))


def test_epochs_and_seeds_differ_and_unshuffled_epochs_do_not():
    plan, n = made(), len(made())
    first, second = ([plan.at(step) for step in range(k * n, k * n + n)] for k in (0, 1))
    assert first != second and {tuple(sorted(row)) for row in first} != {tuple(sorted(row)) for row in second}
    assert [len(row) for row in first] != [len(row) for row in second], "the batches come in the same order"
    assert [made(seed=4).at(step) for step in range(n)] != first
    plain = made(shuffle=False)
    assert [plain.at(step) for step in range(n)] == [plain.at(step + n) for step in range(n)]


def test_a_run_resumed_at_step_k_sees_what_the_undisturbed_run_saw():
    undisturbed = made()
    history = [undisturbed.at(step) for step in range(3 * len(undisturbed))]
    for k in (1, len(undisturbed) - 1, len(undisturbed), 2 * len(undisturbed) + 5):
        resumed = made()
        assert [resumed.at(step) for step in range(k, len(history))] == history[k:]


def test_another_process_makes_the_same_batches():
    code = """
from slm.data.batches import Batches
plan = Batches([7 * i % 97 + 1 for i in range(500)], cost=float, budget=400, seed=5)
print([plan.at(step) for step in (0, 5, len(plan) + 3, 40 * len(plan))])
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    plan = Batches([7 * i % 97 + 1 for i in range(500)], cost=float, budget=400, seed=5)
    assert out.strip() == str([plan.at(step) for step in (0, 5, len(plan) + 3, 40 * len(plan))])


def test_an_upgrade_does_not_reorder_a_run_that_is_to_be_resumed():
    plan = Batches(list(range(1, 13)), cost=float, budget=24, seed=1)
    assert [plan.at(step) for step in range(len(plan))] == [[2, 1], [6, 7, 8], [10, 9], [12, 11], [5, 4, 3]]


def test_ranks_are_disjoint_and_complete():
    world, plan = 3, made()
    steps = len(plan)  # three epochs
    seen = [item for step in range(steps) for rank in range(world) for item in plan.at(step, rank, world)]
    assert sorted(seen) == sorted(list(enumerate(lengths())) * world)
    one = [plan.at(step) for step in range(steps * world)]
    assert [plan.at(step, rank, world) for step in range(steps) for rank in range(world)] == one


@pytest.mark.parametrize(
    "items, budget, words",
    [
        ([], 10, "no items"),
        ([1, 0], 10, "positive"),
        ([1, float("nan")], 10, "item 1 costs nan"),
        ([1, 11, 12], 10, "2 of 3 items cost up to 12"),
    ],
)
def test_impossible_batches_are_one_sentence(items, budget, words):
    with pytest.raises(SlmError, match=words):
        Batches(items, cost=float, budget=budget, seed=0)
    with pytest.raises(SlmError):
        made().at(0, rank=2, world=2)
    with pytest.raises(SlmError):
        made(seed=-1).at(0)


# ragged rows


def test_padding_and_back():
    rows = [torch.arange(3.0), torch.arange(5.0)]
    full, sizes = batch.pad(rows, value=-1)
    assert full.tolist() == [[0, 1, 2, -1, -1], [0, 1, 2, 3, 4]] and sizes.tolist() == [3, 5] and sizes.dtype == torch.long
    features = [torch.randn(2, 4), torch.randn(3, 4)]
    full, sizes = batch.pad(features, dim=0)
    assert full.shape == (2, 3, 4) and full[0, 2].abs().sum() == 0
    assert all(torch.equal(a, b) for a, b in zip(batch.unpad(full, sizes, dim=0), features))
    assert batch.pad([torch.ones(2, 3, dtype=torch.long)])[0].dtype == torch.long
    for wrong in ([], [torch.zeros(2, 3), torch.zeros(3, 3)], [torch.zeros(2), torch.zeros(2, 2)]):
        with pytest.raises(SlmError):
            batch.pad(wrong)


def test_rows_become_a_batch_only_if_they_have_the_same_entries():
    row = {"text": torch.arange(3), "audio": torch.zeros(1, 5)}
    assert {name: len(rows) for name, rows in batch.collate([row, row]).items()} == {"text": 2, "audio": 2}
    with pytest.raises(SlmError, match="same entries"):
        batch.collate([row, {"text": torch.arange(3)}])


# crops


@pytest.fixture
def tones(tmp_path):
    """Clips of 1, 2 and 0.3 s, at different pitches and rates."""
    for name, seconds, hz, rate in (("a", 1.0, 200, 16000), ("b", 2.0, 300, 24000), ("c", 0.3, 400, 16000)):
        save(tmp_path / f"in/{name}.wav", tone(seconds, hz, rate), rate)
    return cuts.load(prepare.prepare(tmp_path / "in", tmp_path / "out").path)


def test_crops_are_a_function_of_seed_and_step(tones):
    crops = Crops(tones, rate=RATE, seconds=0.5, batch=4, seed=1)
    history = [crops.at(step) for step in range(4)]
    assert history[0].shape == (4, 1, 8000) and history[0].dtype == torch.float32
    assert not torch.equal(history[0], history[1])
    resumed = Crops(tones, rate=RATE, seconds=0.5, batch=4, seed=1, keep=0)
    assert all(torch.equal(resumed.at(step), history[step]) for step in (3, 1, 2, 0)) and not resumed._kept
    assert not torch.equal(Crops(tones, RATE, 0.5, 4, seed=2).at(0), history[0])
    assert torch.equal(torch.cat([Crops(tones, RATE, 0.5, 2, seed=1).at(2, rank, 2) for rank in (0, 1)]), history[2])


def test_crops_are_pieces_of_the_clips_in_proportion_to_their_length(tones):
    crops = Crops(tones, rate=RATE, seconds=0.25, batch=200, seed=0)
    rows = crops.at(0)[:, 0]
    pitch = torch.fft.rfft(rows * torch.hann_window(4000)).abs().argmax(-1) * RATE / 4000
    share = [(pitch - hz).abs().lt(10).float().mean().item() for hz in (200, 300, 400)]
    assert sum(share) == pytest.approx(1) and share == pytest.approx([1 / 3.3, 2 / 3.3, 0.3 / 3.3], abs=0.1)
    clip = crops._kept[0].astype(np.float32) / 32767
    row = rows[int((pitch - 200).abs().argmin())].numpy()
    assert any(np.allclose(row, clip[start : start + 4000], atol=1e-4) for start in range(len(clip) - 4000 + 1))


def test_clips_shorter_than_a_crop_are_followed_by_others(tones):
    row = Crops(tones, rate=RATE, seconds=20.0, batch=1, seed=0).at(0)
    assert row.shape == (1, 1, 320000) and row.unfold(-1, 800, 800).abs().amax(-1).min() > 0.05
    spectrum = torch.fft.rfft(row[0, 0]).abs()
    assert sum(spectrum[20 * hz - 40 : 20 * hz + 40].max() > 0.05 * spectrum.max() for hz in (200, 300, 400)) > 1


def test_a_clip_that_vanished_is_left_out_with_one_warning(tones, tmp_path):
    (tmp_path / "in/b.wav").unlink()
    crops = Crops(tones, rate=RATE, seconds=0.5, batch=8, seed=0)
    with pytest.warns(UserWarning, match="b.wav") as caught:
        [crops.at(step) for step in range(3)]
    assert len(caught) == 1
    for name in "ac":
        (tmp_path / f"in/{name}.wav").unlink()
    with pytest.raises(SlmError, match="cannot be read"), pytest.warns(UserWarning):
        Crops(tones, rate=RATE, seconds=0.5, batch=8, seed=0).at(0)


def test_taught_crops_leave_out_a_clip_that_vanished_and_start_on_frames(tones, tmp_path):
    save(tmp_path / "in/a.wav", 0.1 * np.random.default_rng(0).standard_normal(RATE).astype(np.float32))
    sounds = Sounds((str(tmp_path / "out"),), seconds=0.5, batch=4, gain=(0.0, 0.0), seed=1)
    whole = sounds.build({})
    (tmp_path / "in/b.wav").unlink()
    with pytest.warns(UserWarning, match="Left out of training: .*b.wav") as caught:
        crops = sounds.build({})
    assert len(caught) == 1 and (len(whole.clips), len(crops.clips)) == (2, 1)  # c is shorter than a crop
    rows = crops.at(3)
    assert torch.equal(crops.at(3)["audio"], rows["audio"]) and not torch.equal(crops.at(4)["audio"], rows["audio"])
    assert rows["audio"].shape == (4, 1, 8000) and (rows["teacher"] == -1).all() and rows["teacher"].shape == (4, 25)
    pieces = torch.from_numpy(crops.clips[0][0].astype(np.float32) / audio.FULL).unfold(0, 8000, 320)
    assert all((pieces - row).abs().amax(1).min() < 1e-6 for row in rows["audio"][:, 0])
    (tmp_path / "in/a.wav").unlink()
    with pytest.raises(SlmError, match="no clip of"), pytest.warns(UserWarning):
        sounds.build({})


# codes on disk


class Loudness(torch.nn.Module):
    """A tokenizer of one level: the loudness of 10 ms, in 1,000 steps."""

    rate, hop, n_q, card = 8000, 80, 1, 1000
    calls = 0

    def encode(self, sound: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return (sound[..., : sound.shape[-1] // 80 * 80].unfold(-1, 80, 80).abs().mean(-1) * 999).long()


def test_stored_tensors_come_back_as_they_were_and_small(tmp_path):
    store = cache.CodeCache(tmp_path, "encodec-1")
    tensors = {"codes": torch.randint(1024, (8, 50)), "big": torch.tensor([2**40]), "low": torch.tensor([-1, 5]), "mel": torch.randn(80, 9)}
    store.put("clip/1", tensors)
    back = store.get("clip/1")
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], tensor) and back[name].dtype == tensor.dtype for name, tensor in tensors.items())
    assert next(tmp_path.rglob("*.safetensors")).stat().st_size < 8 * 50 * 2 + 80 * 9 * 4 + 600
    assert store.get("clip/2") is None and "clip/1" in store and "clip/2" not in store


def test_another_fingerprint_never_sees_these_codes(tmp_path):
    cache.CodeCache(tmp_path, "a").put("x", {"codes": torch.ones(1, dtype=torch.long)})
    other = cache.CodeCache(tmp_path, "b")
    assert other.get("x") is None
    other.put("x", {"codes": torch.zeros(1, dtype=torch.long)})
    assert cache.CodeCache(tmp_path, "a").get("x")["codes"].item() == 1 and len(list(tmp_path.iterdir())) == 2


def test_a_corpus_is_encoded_once_and_damaged_codes_again(tones, tmp_path):
    tokenizer, store = Loudness(), cache.CodeCache(tmp_path / "codes", "loudness")
    first = cache.encode_corpus(tones, tokenizer, store)
    assert (first.new, first.cached, first.skipped) == (3, 0, []) and tokenizer.calls == 3
    before = {cut.id: store.get(cuts.key_of(cut))["codes"] for cut in tones}
    assert {name: codes.shape for name, codes in before.items()} == {"a": (1, 100), "b": (1, 200), "c": (1, 30)}

    files = sorted((tmp_path / "codes").rglob("*.safetensors"))
    for file, size in zip(files[:2], (0, files[1].stat().st_size - 10)):
        file.write_bytes(file.read_bytes()[:size])
    again = cache.encode_corpus(tones, tokenizer, store)
    assert (again.new, again.cached) == (2, 1) and tokenizer.calls == 5
    assert all(torch.equal(store.get(cuts.key_of(cut))["codes"], before[cut.id]) for cut in tones)


def test_a_file_with_other_content_is_encoded_anew_and_a_moved_one_is_not(tones, tmp_path):
    store = cache.CodeCache(tmp_path / "codes", "loudness")
    cache.encode_corpus(tones, Loudness(), store)
    (tmp_path / "in").rename(tmp_path / "moved")
    save(tmp_path / "moved/a.wav", tone(1.0, 210))
    moved = cuts.load(prepare.prepare(tmp_path / "moved", tmp_path / "out2").path)
    done = cache.encode_corpus(moved, Loudness(), store)
    assert (done.new, done.cached) == (1, 2)


def test_a_clip_that_cannot_be_read_does_not_stop_the_encoding(tones, tmp_path):
    (tmp_path / "in/b.wav").write_text("not audio any more")
    done = cache.encode_corpus(tones, Loudness(), cache.CodeCache(tmp_path / "codes", "loudness"))
    assert done.new == 2 and [skip.path for skip in done.skipped] == ["b"] and "b.wav" in done.skipped[0].reason


def test_layouts_are_told_apart(tmp_path):
    save(tmp_path / "plain/a.wav")
    assert corpus.detect(tmp_path / "plain") == "folder"
    (tmp_path / "plain/metadata.csv").touch()
    assert corpus.detect(tmp_path / "plain") == "folder"
    (tmp_path / "plain/wavs").mkdir()
    assert corpus.detect(tmp_path / "plain") == "ljspeech"
    (tmp_path / "plain/manifest.jsonl").touch()
    assert corpus.detect(tmp_path / "plain") == "manifest" == corpus.detect(tmp_path / "plain/manifest.jsonl")
