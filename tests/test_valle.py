"""VALL-E and RALL-E: a voice goes on, frames look at no phone outside their window, and speech has the length its durations say."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from slm import model, recipe
from slm.backbone.mamba2 import Mamba2
from slm.backbone.transformer import Transformer
from slm.condition.window import Sight, Window
from slm.config import from_dict, to_dict
from slm.data.continued import Continuations, Continued, within
from slm.data.lessons import Lessons
from slm.data.madeup import MadeUpUtterances
from slm.data.prosody import MadeUpMelody, Melody, PitchBins, Tracker, by_phone
from slm.data.utterances import Utterance
from slm.errors import SlmError
from slm.stage.lm import LM, Stream
from slm.stream.part import Part, merge
from slm.stream.sample import Sampling
from slm.train.run import train_recipe

ROOT = Path(__file__).parent.parent
VALLE, RALLE = (recipe.load(ROOT / f"recipes/zero_shot/{name}.py") for name in ("valle", "ralle"))
STUDY = recipe.load(ROOT / "recipes/study/hard.py", ("study", "small"))
STREAMS = {"text": Stream(9), "pitch": Stream(5), "duration": Stream(7), "acoustic": Stream(12, 3)}


def stage(parts: list[Part], depth: int = 2, **more) -> LM:
    torch.manual_seed(0)
    told = {part.name: Sampling(temperature=0) for part in parts}
    lm = LM.Config(parts, Transformer.Config(24, depth, 2), sampling=told, cap=6.0, **more).build(STREAMS).eval()
    with torch.no_grad():
        for name, weight in lm.named_parameters():
            if weight.ndim == 2 and name.startswith("backbone"):
                weight.normal_(0, 0.2)  # so that what a step sees matters
    return lm


def test_each_part_counts_its_own_places_and_says_as_it_was_taught():
    parts = VALLE.PARTS
    lm = stage(parts, places={"text": 1.0, "acoustic": 0.25})
    lm.head.bias.data[lm.vocabulary.eos] = -9.0
    rows = batch(4, 6)
    merged = merge(parts, rows, lm.vocabulary)
    assert lm.where(merged)[0, : 5 + 1 + 3].tolist() == [0, 1, 2, 3, 4, 0, 0.25, 0.5, 0.75]
    text = torch.randint(0, 9, (6,))
    for chosen in ([text], [text, text[:3]]):  # alone, and beside another
        said = lm.run({"text": list(chosen)}, [0] * len(chosen))
        codes = said["acoustic"][0]
        whole = merge(parts, {"text": [text], "acoustic": [codes]}, lm.vocabulary)
        hidden, _ = lm.think(lm.inputs(whole.ids, None), None, whole.lengths, None, at=lm.where(whole))
        begin = whole.spans[0][1][1]
        best = lm.score(hidden[0, begin - 1 : begin - 1 + codes.shape[1]], lm.legal(parts[1], 0)).argmax(-1)
        assert codes.shape[1] > 3 and torch.equal(best, codes[0])
    plain = stage(parts)
    plain.load_state_dict(lm.state_dict())
    assert not torch.equal(plain.run({"text": [text]}, [0])["acoustic"][0], codes)


def test_places_are_told_to_a_transformer_and_of_every_part():
    with pytest.raises(SlmError, match="every part: text, acoustic"):
        stage(VALLE.PARTS, places={"text": 1.0})
    with pytest.raises(SlmError, match="Transformer"):
        LM.Config(VALLE.PARTS, Mamba2.Config(32, 1, headdim=16), places={"text": 1.0, "acoustic": 1.0}).build(STREAMS)


def test_lessons_take_turns_and_the_last_goes_on():
    data = [Continued(MadeUpUtterances(), prompt=(8, 16), longest=longest) for longest in (10, 30, 60)]
    config = from_dict(to_dict(Lessons([(3, data[0]), (2, data[1])], data[2])))
    built = {name: made.build() for name, made in VALLE.small().tokenizers.items()}
    lessons, each = config.build(built), [one.build(built) for one in data]
    for step, turn in enumerate([0, 0, 0, 1, 1, 2, 2, 2]):
        for a, b in zip(lessons.at(step)["acoustic"], each[turn].at(step)["acoustic"], strict=True):
            assert torch.equal(a, b)
    assert len(lessons) == len(each[2])
    for wrong in (Lessons([(0, data[0])], data[1]), Lessons([(1, data[0])])):
        with pytest.raises(SlmError, match="at least one step"):
            wrong.build(built)


@pytest.fixture
def ralle() -> LM:
    return stage(RALLE.PARTS, window=Window.Config())


def batch(*phones: int) -> dict:
    draw = torch.Generator().manual_seed(3)
    duration = [torch.randint(1, 4, (n,), generator=draw) for n in phones]
    return {
        "text": [torch.randint(0, 9, (n,), generator=draw) for n in phones],
        "pitch": [torch.randint(0, 5, (n,), generator=draw) for n in phones],
        "duration": duration,
        "acoustic": [torch.randint(0, 12, (3, int(d.sum())), generator=draw) for d in duration],
    }


def beginning(rows: dict, phones: int) -> dict:
    """The texts, and of all else the first phones' part."""
    frames = [int(d[:phones].sum()) for d in rows["duration"]]
    codes = [c[:1, :n] for c, n in zip(rows["acoustic"], frames)]
    return {
        "text": rows["text"],
        "pitch_begins": [p[:phones] for p in rows["pitch"]],
        "duration_begins": [d[:phones] for d in rows["duration"]],
        "acoustic_begins": codes,
    }


def frames_of(merged, duration) -> list[tuple[int, int]]:
    """(the step that says it, its phone) of each frame of a batch of one row."""
    start = merged.spans[0][-1][1]
    return [(start - 1 + t, int(i)) for t, i in enumerate(torch.arange(len(duration)).repeat_interleave(duration))]


def test_a_window_is_as_drawn():
    """Two phones of 1 and 2 frames, reach 0: which earlier step is seen by the step that says each frame?"""
    lm = stage(RALLE.PARTS, window=Window.Config(reach=0))
    two = {"text": [3, 4], "pitch": [1, 2], "duration": [1, 2], "acoustic": [[0, 0, 0]] * 3}
    rows = {name: [torch.tensor(ids)] for name, ids in two.items()}
    merged = merge(lm.parts, rows, lm.vocabulary)
    seen = lm.looks(merged, rows)[0].int()
    before = [seen[step, :9].tolist() for step in (9, 10, 11)]  # <text> t t <pitch> p p <duration> d d | <acoustic> a a a
    assert before == [[0, 1, 0] * 3, [0, 0, 1] * 3, [0, 0, 1] * 3]
    assert (seen[:, 9:] == 1).all() and (seen[:9] == 1).all()


@pytest.mark.parametrize("reach", [0, 1, 3])
def test_in_every_layer_the_weight_of_a_phone_outside_the_window_is_exactly_none(reach, monkeypatch):
    from slm.backbone import block

    lm, rows, weights, attend = stage(RALLE.PARTS, window=Window.Config(reach=reach)), batch(6), [], block.attend

    def audited(q, k, v, mask, causal):
        one = torch.eye(k.shape[2]).expand(*k.shape[:2], -1, -1)
        weights.append(attend(q, k, one, mask, causal)[0])  # values that tell from which key they are: the weights themselves
        return attend(q, k, v, mask, causal)

    monkeypatch.setattr(block, "attend", audited)
    merged = merge(lm.parts, rows, lm.vocabulary)
    for grad in (True, False):  # two ways to the same numbers
        with torch.set_grad_enabled(grad):
            lm.think(lm.inputs(merged.ids, None), None, merged.lengths, lm.looks(merged, rows))
    assert len(weights) == 4
    near = {start + i: i for name, start, stop in merged.spans[0][:3] for i in range(stop - start)}
    for layer in weights:
        for step, phone in frames_of(merged, rows["duration"][0]):
            for key in range(merged.spans[0][-1][1] - 1):
                inside = key in near and abs(near[key] - phone) <= reach
                assert (layer[:, step, key] > 0).all() if inside else (layer[:, step, key] == 0).all()
            assert (layer[:, step, merged.spans[0][-1][1] - 1 : step + 1] > 0).all(), "all earlier frames are seen"


def test_in_one_layer_a_phone_outside_the_window_has_no_effect_at_all():
    lm, rows = stage(RALLE.PARTS, depth=1, window=Window.Config()), batch(5)
    merged = merge(lm.parts, rows, lm.vocabulary)
    seen = lm.looks(merged, rows)
    x = lm.inputs(merged.ids, None)
    before, _ = lm.think(x, None, merged.lengths, seen)
    for name, start, stop in merged.spans[0][:3]:
        for i in range(stop - start):
            moved = x.clone()
            moved[0, start + i] += 1
            after, _ = lm.think(moved, None, merged.lengths, seen)
            for step, phone in frames_of(merged, rows["duration"][0]):
                assert torch.equal(before[0, step], after[0, step]) is (abs(phone - i) > 1), (name, i, phone)


def test_masks_step_by_step_are_those_at_once(ralle):
    rows = batch(3, 6, 1)
    merged = merge(ralle.parts, rows, ralle.vocabulary)
    whole = ralle.looks(merged, rows)
    given = {"text": rows["text"]}
    sight = Sight(ralle.window, merge(ralle.parts[:1], given, ralle.vocabulary), given)
    place = [len(text) + 1 for text in rows["text"]]
    for part in ralle.parts[1:]:
        steps = [rows[part.name][b].shape[-1] for b in range(3)]
        sight.begin(part.name, steps, rows if part.name != "pitch" else given)
        for step in range(max(steps) + 1):
            active = [step <= n for n in steps]
            seen = sight.step(step, active)
            assert seen.shape == (3, 1, max(place) + 1) and seen.any(-1).all()
            for b in range(3):
                if active[b]:
                    assert torch.equal(seen[b, 0, : place[b] + 1], whole[b, place[b], : place[b] + 1])
                    place[b] += 1
    assert place == merged.lengths.tolist()


def test_the_chain_of_thought_says_as_many_frames_as_its_durations(ralle):
    rows = batch(4, 7, 2)
    given = beginning(rows, 2)
    said = ralle.run(given, [0, 1, 2])
    assert said["stop"] == ["end"] * 3
    for b, text in enumerate(rows["text"]):
        assert len(said["pitch"][b]) == len(said["duration"][b]) == len(text) and (said["duration"][b] > 0).all()
        assert said["acoustic"][b].shape == (1, int(said["duration"][b].sum()))
        for name in ("pitch", "duration", "acoustic"):
            begins = given[f"{name}_begins"][b]
            assert torch.equal(said[name][b][..., : begins.shape[-1]], begins), "what was given is not drawn"


def at_once(lm: LM, rows: dict, part: str, level: int = 0) -> list[torch.Tensor]:
    """The likeliest id at each step of a part, all steps heard at once; <eos> is the part's last local id."""
    merged = merge(lm.parts, rows, lm.vocabulary)
    with torch.no_grad():
        hidden, _ = lm.think(lm.inputs(merged.ids, None), None, merged.lengths, lm.looks(merged, rows))
    legal = lm.legal(next(p for p in lm.parts if p.name == part), level)
    spans = [next((start, stop) for name, start, stop in row if name == part) for row in merged.spans]
    begin, _ = lm.vocabulary.range(lm.vocabulary.level(part, level))
    return [legal[lm.score(hidden[b, start - 1 : stop], legal).argmax(-1)] - begin for b, (start, stop) in enumerate(spans)]


def test_what_is_said_step_by_step_is_likeliest_at_once(ralle):
    given = beginning(batch(4, 7, 2), 2)
    said = ralle.run(given, [0, 1, 2])
    rows = {name: said[name] for name in ("text", "pitch", "duration", "acoustic")}
    for name in ("pitch", "duration", "acoustic"):
        for b, ids in enumerate(at_once(ralle, rows, name)):
            begins = given[f"{name}_begins"][b].shape[-1]
            assert torch.equal(ids[begins:-1], rows[name][b].view(-1)[begins:]), name


def test_a_voice_goes_on_until_its_end_is_likeliest():
    lm = stage(VALLE.PARTS)
    with torch.no_grad():
        lm.head.bias[lm.vocabulary.eos] = 0.13
    rows = batch(5, 3)
    given = {"text": rows["text"], "acoustic_begins": [codes[:1, :2] for codes in rows["acoustic"]]}
    said = lm.run(given, [0, 1])
    merged = merge(lm.parts, said, lm.vocabulary)
    with torch.no_grad():
        hidden, _ = lm.backbone(lm.inputs(merged.ids, None), lengths=merged.lengths)
    legal = lm.legal(lm.parts[1], 0)
    for b, (stop, codes) in enumerate(zip(said["stop"], said["acoustic"])):
        start = merged.spans[b][1][1]
        likeliest = legal[lm.score(hidden[b, start - 1 : start + codes.shape[1]], legal).argmax(-1)]
        assert torch.equal(codes[:, :2], given["acoustic_begins"][b])
        assert torch.equal(likeliest[2:-1], merged.ids[b, start + 2 : start + codes.shape[1], 0])
        assert (likeliest[-1] == lm.vocabulary.eos) == (stop == "end") and codes.shape[1] <= 6 * len(rows["text"][b])
    assert "end" in said["stop"]


@pytest.mark.parametrize("system", [VALLE, RALLE], ids=["valle", "ralle"])
def test_rows_go_on_as_if_they_were_alone(system):
    more = {} if system is VALLE else {"window": Window.Config()}
    lm = stage(system.PARTS, **more)
    for sampling in lm.config.sampling.values():
        sampling.temperature = 1.0
    rows = batch(4, 7, 2)
    given = {name: content for name, content in beginning(rows, 2).items() if name.split("_")[0] in [p.name for p in lm.parts]}
    together = lm.run(given, [5, 6, 7])
    for b in range(3):
        alone = lm.run({name: content[b : b + 1] for name, content in given.items()}, [5 + b])
        assert torch.equal(alone["acoustic"][0], together["acoustic"][b]) and alone["stop"][0] == together["stop"][b]


@pytest.mark.parametrize("reach", [0, 1, 9])
def test_the_first_and_the_last_phone_give_numbers(reach):
    lm = stage(RALLE.PARTS, window=Window.Config(reach=reach))
    rows = batch(1, 5, 2)
    losses = lm.loss(rows)
    assert all(torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in lm.parameters())
    said = lm.run({"text": rows["text"]}, [0, 1, 2])
    assert all(codes.shape[1] == int(d.sum()) for codes, d in zip(said["acoustic"], said["duration"]))


def test_losses_of_a_padded_batch_are_those_of_its_rows(ralle):
    rows = batch(3, 6)
    alone = [ralle.loss({name: content[b : b + 1] for name, content in rows.items()}) for b in (0, 1)]
    for name, loss in ralle.loss(rows).items():
        counts = [content.shape[-1] for content in rows[name]]
        expected = sum(n * one[name].item() for n, one in zip(counts, alone)) / sum(counts)
        assert loss.item() == pytest.approx(expected, abs=1e-5)


def test_what_a_window_cannot_work_with_is_refused():
    with pytest.raises(SlmError, match="must be a Transformer"):
        LM.Config(RALLE.PARTS, Mamba2.Config(32, 1, headdim=16, d_state=8), window=Window.Config()).build(STREAMS)
    with pytest.raises(SlmError, match="reach = -1"):
        Window.Config(reach=-1).build()
    lm, rows = stage(RALLE.PARTS, window=Window.Config()), batch(3)
    rows["duration"][0][0] += 1
    with pytest.raises(SlmError, match="durations of a row sum to"):
        lm.loss(rows)


def utterance(name: str, speaker: str, durations: list[int], first: int) -> Utterance:
    """Its codes are numbers from `first` on, so that a piece tells where it is from; each phone's id is its place."""
    frames = sum(durations)
    codes = torch.arange(first, first + frames).repeat(2, 1)
    return Utterance(name, speaker, torch.arange(len(durations)), torch.tensor(durations), codes)


def test_rows_of_a_continued_voice_are_two_pieces_of_whole_phones():
    items = [utterance("a", "x", [3, 2, 4, 1, 5], 0), utterance("b", "x", [2, 2, 2, 2], 100), utterance("c", "y", [4, 4, 4, 4], 200)]
    pitch = {item.id: 10 * i + item.text for i, item in enumerate(items, 1)}
    config = Continued(MadeUpUtterances(frames=100), prompt=(3, 6), longest=9)
    data, target = Continuations(config, items, pitch), Continuations(Continued(config.of, config.prompt, 9, joined=False), items)
    ends = {item.id: set(item.codes[0, item.duration.cumsum(0) - 1].tolist()) for item in items}
    for step in range(40):
        rows, alone = data.at(step), target.at(step)
        for b, codes in enumerate(rows["acoustic"]):
            prompt = rows["prompt_codes"][b]
            size = prompt.shape[1]
            assert codes.shape[1] == int(rows["duration"][b].sum()) and len(rows["pitch"][b]) == len(rows["text"][b])
            assert torch.equal(codes[:, :size], prompt) and torch.equal(codes[:, size:], alone["acoustic"][b])
            assert torch.equal(alone["text"][b], rows["text"][b])
            hundreds = [int(piece[0, 0]) // 100 for piece in (codes[:, :size], codes[:, size:])]
            assert sorted(hundreds) in ([0, 1], [2, 2]), "another utterance of the speaker, or its own beginning"
            assert hundreds != [2, 2] or prompt[0, -1] < codes[0, size]
            for piece in (codes[0, :size], codes[0, size:]):
                assert (piece.diff() == 1).all() and int(piece[-1]) in set().union(*ends.values())
            phones = [int(p) // 10 - 1 for p in rows["pitch"][b]]
            assert phones == sorted(phones, key=phones.index) and set(phones) == set(hundreds)
    assert all(torch.equal(a, b) for a, b in zip(data.at(7)["acoustic"], Continuations(config, items, pitch).at(7)["acoustic"]))


def test_a_piece_is_at_most_so_long_but_at_least_a_phone():
    row = {"text": torch.arange(3), "duration": torch.tensor([5, 2, 9]), "acoustic": torch.arange(16)[None]}
    assert within(row, 0, 7)["acoustic"].tolist() == [list(range(7))]
    assert within(row, 2, 3)["acoustic"].tolist() == [list(range(7, 16))] and within(row, 1, 3)["text"].tolist() == [1]


def test_pitch_is_tracked_averaged_by_phone_and_binned():
    time = torch.arange(8000) / 8000
    tone = torch.sin(2 * np.pi * 200 * time)[None, None]
    hertz = Tracker().encode(torch.cat([tone, torch.zeros(1, 1, 4001)], -1))[0, 0] / 10
    assert len(hertz) == 76 and hertz[2:48].sub(200).abs().max() < 1 and (hertz[52:] == 0).all()
    assert by_phone(torch.tensor([100.0, 400.0, 0.0, 0.0, 150.0]), torch.tensor([2, 3])).tolist() == [pytest.approx(200), 0]
    assert by_phone(torch.tensor([0.0, 120.0, 120.0]), torch.tensor([3])).tolist() == [pytest.approx(120)]
    assert by_phone(torch.tensor([100.0, 100.0]), torch.tensor([2, 1])).tolist() == [pytest.approx(100), 0], "a frame may be missing"
    bins = PitchBins.Config(32).build()
    assert bins.encode(torch.tensor([0.0, 60.0, 30.0, 400.0, 900.0])).tolist() == [0, 1, 1, 31, 31]
    ids = torch.arange(32)
    assert torch.equal(bins.encode(bins.decode(ids)), ids)
    with pytest.raises(SlmError, match="at least 2"):
        PitchBins.Config(1).build()


def test_a_corpus_is_tracked_once_and_its_phones_are_as_high_as_they_are_sung(tmp_path, monkeypatch):
    import soundfile

    from slm.data import prosody
    from slm.data.prepare import prepare

    time = np.arange(16000) / 16000
    (tmp_path / "corpus").mkdir()
    soundfile.write(tmp_path / "corpus/a.wav", np.where(time < 0.5, 0.3 * np.sin(2 * np.pi * 200 * time), 0), 16000)
    (tmp_path / "corpus/a.txt").write_text("Ah.")
    prepare(tmp_path / "corpus", tmp_path / "ready")
    cut = json.loads(gzip.decompress((tmp_path / "ready/cuts.jsonl.gz").read_bytes()))["id"]
    (tmp_path / "ready/phones.jsonl").write_text(json.dumps({"id": cut, "phones": [["AA1", 24], ["sil", 26]]}) + "\n")
    item, bins = Utterance(cut, "x", torch.tensor([1, 0]), torch.tensor([24, 20]), torch.zeros(1, 44)), PitchBins.Config().build()
    melody = Melody((str(tmp_path / "ready"),), str(tmp_path / "cache"))
    found = melody.of([item], bins)
    assert found[cut].tolist() == [int(bins.encode(torch.tensor(200.0))), 0]
    monkeypatch.setattr(prosody, "pitch", None)
    assert torch.equal(melody.of([item], bins)[cut], found[cut]), "what was tracked is kept"
    item.text = torch.tensor([1])
    with pytest.raises(SlmError, match="was not found"):
        melody.of([item], bins)


def test_made_up_melodies_follow_their_speakers():
    from slm_tokenizers.text.phonemes import Phonemes

    tokenizers = {name: config.build() for name, config in RALLE.small().tokenizers.items() if name != "text"} | {"text": Phonemes()}
    data = RALLE.small().data["ar"].build(tokenizers)
    item = data.batches.items[3]
    assert len(data.pitch[item.id]) == len(item.text) and ((data.pitch[item.id] == 0) == (item.text == 0)).all()
    with pytest.raises(SlmError, match="needs a tokenizer 'pitch'"):
        Continued(MadeUpUtterances(), melody=MadeUpMelody()).build({n: t for n, t in tokenizers.items() if n != "pitch"})


@pytest.mark.parametrize("name", ["valle", "ralle"])
def test_a_small_system_trains_saves_loads_and_speaks(name, tmp_path):
    path = ROOT / f"recipes/zero_shot/{name}.py"
    for stage_name in ("ar", "nar"):
        assert len(train_recipe(path, stage_name, tmp_path, small=True, quiet=True)) == 3
    loaded = model.load(tmp_path)
    first, finer, codec = loaded.stages["ar"], loaded.stages["nar"], loaded.tokenizers["acoustic"]
    rows = recipe.load(path).small().data["ar"].build(loaded.tokenizers).at(0)
    begins = {part.name: [row[..., :4] for row in rows[part.name]] for part in first.parts[1:]}
    with pytest.raises(SlmError, match="acoustic_begins has 3 levels where the part has 1"):
        first.run({"text": rows["text"], "acoustic_begins": begins["acoustic"]}, list(range(len(rows["text"]))))
    begins["acoustic"] = [row[:1] for row in begins["acoustic"]]
    given = {"text": rows["text"]} | {f"{name}_begins": row for name, row in begins.items()}
    said = first.run(given, list(range(len(rows["text"]))))
    for b, codes in enumerate(said["acoustic"]):
        assert torch.equal(codes[0, :4], rows["acoustic"][b][0, :4])
    prompts = [row[:, :4] for row in rows["acoustic"]]
    last = [codes[:, 4:] if codes.shape[1] > 4 else codes for codes in said["acoustic"]]
    whole = finer.run({"text": rows["text"], "prompt_codes": prompts, "given": last}, [])["acoustic"]
    for codes, known in zip(whole, last):
        assert torch.equal(codes[:1], known) and codes.shape[0] == codec.n_q
        assert codec.decode(codes[None]).isfinite().all()


def test_errors_are_counted_by_kind_a_sentence_an_item(tmp_path, monkeypatch):
    """The study's figures from end to end, on the small model and with a recogniser of our own."""
    from slm.study import hard
    from slm.study.run import train

    study = STUDY.small()
    train(study.variants["RALL-E"](0, tmp_path), tmp_path, quiet=True)
    heard = iter(["hello there there", "one", "nothing at all"])

    class Said:
        def __init__(self, name: str) -> None:
            assert name == "base"

        def transcribe(self, audio: np.ndarray) -> str:
            assert audio.ndim == 1 and audio.dtype == np.float32 and np.isfinite(audio).all() and len(audio) % 320 == 0
            return next(heard)

    class Same:
        def embed(self, audio: np.ndarray) -> np.ndarray:
            """As if there were two voices, of the length of what is heard."""
            return np.array([1.0, 0.0] if len(audio) % 2 else [0.6, 0.8])

    monkeypatch.setattr("slm.evaluate.transcribe.Recogniser", Said)
    monkeypatch.setattr("slm.evaluate.speaker.SpeakerEncoder", Same)
    voices = Continued(MadeUpUtterances(), melody=MadeUpMelody())

    class Known:
        def __init__(self, id: str) -> None:
            self.id = id

    sentences = ("Hello there.", "One, two, three.", "Nothing at all.")
    found = hard.measure(tmp_path, [Known("0"), Known("5")], 0, voices, sentences)
    assert found["word errors"].value == pytest.approx(3 / 8) and len(found["word errors"].parts) == 3
    assert found["skipped"].value == pytest.approx(2 / 8) and found["repeated"].value == pytest.approx(1 / 8)
    assert found["endless"].value == 0 and found["length"].value > 0
    assert found["word errors, another's text"].value == 1 and len(found["voice: to the prompt"].parts) >= 1
    rows = json.loads((tmp_path / "hard.json").read_text())
    assert [row["skipped"] for row in rows] == [0, 2, 0] and all(row["stop"] == "end" and row["frames"] > 0 for row in rows)
    with pytest.raises(SlmError, match="none of the held-out recordings"):
        hard.measure(tmp_path, [Known("of nobody")], 0, voices, sentences)


def test_a_voice_is_beside_its_own_prompt_s_and_the_next_s():
    from slm.study import hard

    class Known:
        def embed(self, audio: np.ndarray) -> np.ndarray:
            return audio[:2]

    one, other = (np.eye(2, 9000)[i] for i in (0, 1))
    found = hard.voices_of([one, other, one[:100], 0.6 * one + 0.8 * other], [one, other], Known())  # the third is too short to tell
    assert found["voice: to the prompt"].value == pytest.approx((1 + 1 + 0.8) / 3)
    assert found["voice: to another's"].value == pytest.approx(0.6 / 3) and len(found["voice: to another's"].parts) == 3


def test_another_codec_is_heard_only_if_its_first_level_is_the_model_s(tmp_path):
    from slm.study import hard
    from slm_tokenizers import stored

    own, same, other = (VALLE.small().tokenizers["acoustic"].build() for _ in range(3))
    same.codebooks.embed.copy_(own.codebooks.embed)
    stored.save(same, tmp_path / "same", exact=True)
    stored.save(other, tmp_path / "other", exact=True)
    assert hard.sounding(own, None) is own
    assert torch.equal(hard.sounding(own, str(tmp_path / "same")).codebooks.embed, own.codebooks.embed)
    with pytest.raises(SlmError, match="other codes"):
        hard.sounding(own, str(tmp_path / "other"))


def test_only_the_sentence_is_counted_and_not_its_prompt():
    from slm.study import hard
    from slm_tokenizers.text.phonemes import Phonemes

    class Echo:
        """Says a frame for each phone, behind what it goes on from."""

        parts = VALLE.PARTS

        def run(self, batch: dict, seeds: list[int]) -> dict:
            said = [torch.cat([b, 7 + torch.zeros(1, len(t)).long()], 1) for b, t in zip(batch["acoustic_begins"], batch["text"])]
            return {"acoustic": said, "stop": ["loop"] * len(seeds)}

    prompts = [{"text": torch.arange(n), "acoustic": torch.ones(3, 6).long()} for n in (2, 3)]
    said = hard.say(Echo(), Phonemes(), prompts, ("Go.", "Go home.", "Go."), 0)
    phones = [len(Phonemes().encode(sentence)) for sentence in ("Go.", "Go home.", "Go.")]
    assert [one["codes"].tolist() for one in said] == [[[7] * (n + more)] for n, more in zip(phones, (2, 3, 2))]
    assert [one["due"] for one in said] == [3 * phones[0], 2 * phones[1], 3 * phones[2]]
    rows = [
        {"skipped": 0, "repeated": 0, "other": 0, "words": 1, "frames": 6, "due": 4, "stop": stop} for stop in ("loop", "end", "length")
    ]
    assert hard.figures(rows)["endless"].value == pytest.approx(2 / 3) and hard.figures(rows)["length"].value == 1.5
    found = hard.figures([row | {"words": 2, "repeated": 200, "skipped": 1} for row in rows])
    assert {name: found[name].value for name in ("word errors", "repeated", "skipped")} == {"word errors": 1, "repeated": 1, "skipped": 0.5}


def test_fifty_sentences_are_hard_and_can_be_spoken():
    from slm_tokenizers.text.phonemes import Phonemes

    sentences = STUDY.SENTENCES
    assert len(sentences) == len(set(sentences)) == 50 and all(len(Phonemes().encode(s)) > 3 for s in sentences)
