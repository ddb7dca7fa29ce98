"""Speech as described: attributes are those that made-up sounds have, words tell of them, and a description is one row's own affair."""

from pathlib import Path

import numpy as np
import pytest
import torch

from slm import model, recipe
from slm.backbone.mamba2 import Mamba2
from slm.backbone.transformer import Transformer
from slm.condition.description import Description
from slm.condition.guide import Guide
from slm.condition.voice import Voice
from slm.data import attributes, described
from slm.data.attributes import NAMES, Bins, measured
from slm.data.described import WHO, WORDS, Described, another, describe
from slm.data.madeup import MadeUpUtterances
from slm.errors import SlmError
from slm.stage import say
from slm.stage.lm import LM, Stream
from slm.stream.part import Part, merge
from slm.stream.sample import Sampling, guided, sample
from slm.study import parler
from slm.study.heldout import Item
from slm.study.run import train
from slm.train.run import tokenizers, train_recipe

ROOT = Path(__file__).parent.parent
RECIPE = ROOT / "recipes/speech_lm/parler.py"
STUDY = recipe.load(ROOT / "recipes/study/parler.py", ("study", "small"))
STREAMS = {"text": Stream(9), "duration": Stream(8), "acoustic": Stream(5, 3), "description": Stream(256)}
PARTS = [Part("text", learn=False), Part("acoustic", layout="delay", end=True)]


def built(parts=PARTS, **more) -> LM:
    torch.manual_seed(0)
    reader = Description.Config(reader=Transformer.Config(12, 1, 2, causal=False))
    told = {"acoustic": Sampling(1.0, 0, 1.0)}
    backbone = Transformer.Config(16, 2, 2, memory=12)
    return loud(LM.Config(list(parts), backbone, description=reader, sampling=told, cap=3, **more).build(STREAMS).eval())


def loud(module):
    """The module with weights that make what it is told matter."""
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in (w for w in module.parameters() if w.ndim == 2):
            weight.normal_(0, 0.4)
    return module


def letters(*texts: str) -> list[torch.Tensor]:
    return [torch.tensor(list(text.encode()), dtype=torch.long) for text in texts]


def batch() -> dict:
    draw = torch.Generator().manual_seed(1)
    return {
        "text": [torch.randint(9, (n,), generator=draw) for n in (3, 2, 5)],
        "acoustic": [torch.randint(5, (3, n), generator=draw) for n in (4, 2, 3)],
        "description": letters("slowly", "", "at a high pitch"),
    }


def row(of: dict, i: int) -> dict:
    return {name: rows[i : i + 1] for name, rows in of.items()}


def test_a_description_does_not_depend_on_its_batch_mates_and_the_order_of_its_letters_matters():
    reader = loud(Description.Config(reader=Transformer.Config(12, 2, 2, causal=False)).build(256).eval())
    rows = letters("in a low voice", "fast", "tsaf")
    together = reader(rows)
    assert together.lengths.tolist() == [14, 4, 4] and together.memory.shape == (3, 14, 12)
    for i, one in enumerate(rows):
        torch.testing.assert_close(reader([one]).memory[0], together.memory[i, : len(one)], atol=1e-5, rtol=1e-4)
    assert (together.memory[1, :4].flip(0) - together.memory[2, :4]).abs().max() > 0.1


def test_a_row_is_learned_alone_as_in_a_batch_with_every_description_its_own():
    lm, rows = built(), batch()
    merged = merge(lm.parts, rows, lm.vocabulary)
    counts = merged.learn.sum((1, 2)).tolist()
    alone = [float(lm.loss(row(rows, i))["acoustic"].detach()) * counts[i] for i in range(3)]
    assert sum(alone) / sum(counts) == pytest.approx(float(lm.loss(rows)["acoustic"].detach()), rel=1e-5)
    other = float(lm.loss(rows | {"description": letters("fast", "", "at a high pitch")})["acoustic"].detach())
    assert abs(other - float(lm.loss(rows)["acoustic"].detach())) > 1e-3, "the description must matter"


@pytest.mark.parametrize("layout", ["delay", "flat", "parallel"])
def test_what_is_said_is_as_likely_as_it_is_learned(layout, monkeypatch):
    """Each row is made to say its codes, step by step with a state; their likelihood is that of all steps at once."""
    lm, rows = built([PARTS[0], Part("acoustic", layout=layout, end=True)]), batch()
    merged = merge(lm.parts, rows, lm.vocabulary)
    queue = [ids[learn].tolist() for ids, learn in zip(merged.ids, merged.learn)]
    ranges, likely = [lm.vocabulary.range(name) for name in lm.vocabulary.names], [0.0] * 3

    def forced(scores, sampling, generators, history=None):
        drawn = []
        for chances, generator in zip(scores.log_softmax(-1), generators):
            id = queue[generator.initial_seed()].pop(0)
            drawn.append(id - next((a for a, b in ranges if a <= id < b), id - len(chances) + 1))
            likely[generator.initial_seed()] += float(chances[drawn[-1]])
        return torch.tensor(drawn)

    monkeypatch.setattr(say, "sample", forced)
    given = {name: rows[name] for name in ("text", "description")}
    said = lm.run(given, [0, 1, 2])
    assert all(torch.equal(a, b) for a, b in zip(said["acoustic"], rows["acoustic"])) and not any(queue)
    for i, one in enumerate(likely):
        learned = -float(lm.loss(row(rows, i))["acoustic"].detach()) * int(merged.learn[i].sum())
        assert one == pytest.approx(learned, abs=1e-3) and learned < -3


def test_a_row_says_alone_what_it_says_in_a_batch():
    lm, rows = built(), batch()
    del rows["acoustic"]
    together = lm.run(rows, [5, 6, 7])
    assert len({codes.shape[1] for codes in together["acoustic"]}) > 1, "rows should end at different steps"
    for i in range(3):
        assert torch.equal(lm.run(row(rows, i), [5 + i])["acoustic"][0], together["acoustic"][i])
    other = lm.run(rows | {"description": letters("noisy", "", "at a low pitch")}, [5, 6, 7])["acoustic"]
    assert torch.equal(other[1], together["acoustic"][1]) and not torch.equal(other[2], together["acoustic"][2])


@pytest.mark.parametrize("voiced", [False, True])
def test_guidance_is_between_what_the_description_and_nothing_make_likely(voiced, monkeypatch):
    voice = Voice.Config(4, 8, 16) if voiced else None
    lm = built([PARTS[0], Part("acoustic", layout="parallel", like="text")], guidance=2.5, voice=voice)
    rows = {name: content for name, content in batch().items() if name != "acoustic"}
    rows |= {"prompt": [torch.randn(n, 4) for n in (6, 3, 4)]} if voiced else {}
    heard = []
    monkeypatch.setattr(say, "sample", lambda scores, *rest, **more: (heard.append(scores), sample(scores, *rest, **more))[1])
    said = lm.run(rows, [0, 1, 2])
    merged, legal, scores = merge(lm.parts, said, lm.vocabulary), lm.legal(lm.parts[1], 2), []
    told, vector = lm.read(rows), lm.hear(rows)
    for one, own in ((told, vector), (told.where(torch.zeros(3, dtype=torch.bool)), None if vector is None else 0 * vector)):
        hidden, _ = lm.think(lm.inputs(merged.ids, lm.hints(said, merged, own)), None, merged.lengths, None, one)
        scores.append(lm.score(torch.stack([h[spans[1][2] - 2] for h, spans in zip(hidden, merged.spans)]), legal))
    wanted = guided(*scores, 2.5)
    for i in (0, 2):
        assert any((h - wanted[i]).abs().amax(-1).min() < 1e-4 for h in heard) and (scores[0][i] - wanted[i]).abs().max() > 1e-2


def test_a_forgotten_description_is_an_empty_one():
    lm, rows = built(forget=1.0), batch()
    none = rows | {"description": letters("", "", "")}
    assert lm.loss(rows)["acoustic"] != lm.loss(none)["acoustic"]
    assert lm.train().loss(rows)["acoustic"] == lm.eval().loss(none)["acoustic"]
    lm.config.forget = 0.5
    torch.manual_seed(0)
    kept = [lm.train()._forgotten(None, lm.read(rows))[1].lengths for _ in range(40)]
    assert 0.3 < torch.stack(kept)[:, [0, 2]].bool().float().mean() < 0.7


def test_what_only_the_description_tells_is_learned_from_it():
    torch.manual_seed(0)
    reader = Description.Config(reader=Transformer.Config(32, 1, 2, causal=False))
    parts = [PARTS[0], Part("acoustic", layout="delay", like="text")]
    lm = LM.Config(parts, Transformer.Config(32, 1, 2, memory=32), description=reader).build(STREAMS)
    texts = ["in a low voice", "in a high voice", "slowly and in a low voice", "slowly and in a high voice"]
    rows = {"text": [torch.zeros(4, dtype=torch.long)] * 4, "description": letters(*texts)}
    rows["acoustic"] = [torch.full((3, 4), 4 * (i % 2)) for i in range(4)]
    adam = torch.optim.Adam(lm.parameters(), 1e-2)
    for _ in range(80):
        adam.zero_grad()
        lm.loss(rows)["acoustic"].backward()
        adam.step()
    with torch.no_grad():
        assert lm.eval().loss(rows)["acoustic"] < 0.1
        assert lm.loss(rows | {"description": rows["description"][1:] + rows["description"][:1]})["acoustic"] > 2
        said = lm.run({"text": rows["text"][:2], "description": letters("a low voice, slowly", "a high voice, slowly")}, [0, 1])["acoustic"]
    assert not said[0].any() and (said[1] == 4).all(), "a wording that was not heard, too"


def test_a_description_goes_with_durations_and_what_cannot_be_told_is_refused():
    parts = [PARTS[0], Part("duration", learn=False), Part("acoustic")]
    rows = batch() | {"duration": [torch.tensor(d) for d in ([1, 2, 1], [1, 1], [1, 1, 1, 0, 0])]}
    assert built(parts, guide=Guide.Config()).loss(rows)["acoustic"].isfinite()
    with pytest.raises(SlmError, match="needs 'description'"):
        built().run({"text": rows["text"]}, [0, 1, 2])
    reader = Description.Config(reader=Transformer.Config(12, 1, 2, causal=False))
    for backbone in (Transformer.Config(16, 1, 2, memory=8), Mamba2.Config(16, 1, headdim=8, d_state=8)):
        with pytest.raises(SlmError, match="memory = 12"):
            LM.Config(PARTS, backbone, description=reader).build(STREAMS)
    with pytest.raises(SlmError, match="of the stream 'description'"):
        LM.Config(PARTS, Transformer.Config(16, 1, 2, memory=12), description=reader).build({k: STREAMS[k] for k in ("text", "acoustic")})
    with pytest.raises(SlmError, match="causal=False"):
        Description.Config(reader=Transformer.Config(12, 1, 2)).build(256)


def sound(hertz: float, wobble: float, noise: float, spoken: float = 2.0, pause: float = 0.5, rate: int = 16000) -> torch.Tensor:
    """A sung buzz whose pitch goes up and down by `wobble` octaves, then a pause, noise of that strength over both. [1,N]"""
    draw, time = np.random.default_rng(0), np.arange(int(spoken * rate)) / rate
    pitch = hertz * 2 ** (wobble * np.sin(2 * np.pi * time))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    buzz = sum(np.sin(k * phase) / k for k in range(1, 6)) * 0.1
    whole = np.concatenate([buzz, np.zeros(int(pause * rate))])
    return torch.from_numpy(whole + noise * draw.standard_normal(len(whole))).float()[None]


def test_attributes_are_those_that_a_sound_was_made_with():
    rate, pitch, melody, noise = measured(sound(150, 0.0, 1e-3), 16000, 20).tolist()
    assert rate == pytest.approx(10, rel=0.05) and pitch == pytest.approx(150, rel=0.02) and melody < 0.05
    loud = float(sound(150, 0, 0, pause=0).square().mean().sqrt())
    assert noise == pytest.approx(-20 * np.log10(loud / 1e-3) - 3, abs=1.5), "half of the noise lies above 4 kHz"
    assert measured(sound(150, 0.0, 1e-3, pause=2.0), 16000, 20)[0] == pytest.approx(rate, rel=0.05), "a pause is no slow speech"
    assert measured(sound(150, 0.3, 1e-3), 16000, 20)[2] == pytest.approx(0.3 / 2**0.5, rel=0.1)
    assert measured(sound(150, 0.0, 1e-2), 16000, 20)[3] - noise == pytest.approx(20, abs=2)
    assert measured(torch.zeros(1, 16000), 16000, 5).tolist()[:3] == [0, 0, 0] and not measured(torch.zeros(1, 0), 16000, 5).any()


def test_a_known_setting_is_found_in_its_bin():
    """The labeller's own bins on sounds that were made fast or slowly, high or low, flat or lively, clean or noisy."""
    draw, made, values = np.random.default_rng(0), [], []
    for _ in range(36):
        bins = draw.integers(0, 3, 4)
        made.append(bins)
        hertz, wobble, noise = (90, 140, 220)[bins[1]], (0.0, 0.1, 0.25)[bins[2]], (3e-4, 1e-3, 4e-3)[bins[3]]
        values.append(measured(sound(hertz, wobble, noise), 16000, (14, 22, 34)[bins[0]]))
    edges = Bins({"rate": [9.0, 14.0], "pitch": [112.0, 175.0], "melody": [0.04, 0.13], "noise": [-43.0, -32.0]})
    right = edges.of(torch.stack(values)) == torch.from_numpy(np.stack(made))
    assert right.float().mean(0).min() >= 0.95


def test_bins_hold_equal_shares_and_stay_as_they_were_first_fitted(tmp_path):
    values = torch.rand(300, 4) * torch.tensor([10.0, 200.0, 1.0, -60.0])
    bins = attributes.kept(tmp_path / "a" / "bins.json", values)
    assert all(95 <= n <= 105 for column in bins.of(values).T for n in torch.bincount(column, minlength=3).tolist())
    assert attributes.kept(tmp_path / "a" / "bins.json", values + 5) == bins == attributes.read(tmp_path / "a" / "bins.json")
    assert attributes.kept(None, values + 5) != bins
    assert bins.of(torch.stack([values.amax(0), values.amin(0)])).tolist() == [[2] * 4, [0] * 4]
    (tmp_path / "bad.json").write_text('{"rate": [1, 2]}')
    for name, message in (("none.json", "there are no bins"), ("bad.json", "damaged")):
        with pytest.raises(SlmError, match=message):
            attributes.read(tmp_path / name)
    with pytest.raises(SlmError, match="3 bins an attribute, not 5"):
        attributes.kept(tmp_path / "a" / "bins.json", values, 5)


def test_no_wording_means_two_things_and_the_held_out_ones_are_never_heard():
    for name in NAMES:
        wordings = [wording for bin in WORDS[name] for wording in bin]
        assert len(WORDS[name]) == 3 and len(set(wordings)) == len(wordings) >= 12
    draw = np.random.default_rng(0)
    held = [bin[-1] for name in NAMES for bin in WORDS[name]]
    for _ in range(300):
        bins, sex = {name: int(draw.integers(3)) for name in NAMES}, (None, "f", "m")[draw.integers(3)]
        text, other = describe(bins, sex, draw), describe(bins, sex, draw, held_out=True)
        pieces = text.removesuffix(".").replace(" and ", ", ").split(", ")
        assert not any(piece == wording or piece.endswith(f" {wording}") for piece in pieces for wording in held)
        assert all(WORDS[name][bins[name]][-1] in other for name in NAMES) and WHO[sex][-1] in other.lower()
        assert "{" not in text + other and all(any(w in text for w in WORDS[name][bins[name]][:-1]) for name in NAMES)
    with pytest.raises(SlmError, match="at least one attribute"):
        describe({}, None, draw)


def data(**changes):
    built = tokenizers(recipe.load(RECIPE).small())
    return Described(MadeUpUtterances(), longest=60, bins=None, cache=None, **changes).build(built), built


def test_a_batch_tells_how_its_own_recordings_sound_and_again_the_same():
    rows, built = data(named=1.0)
    one, again = rows.at(3), rows.at(3)
    assert list(one) == ["text", "acoustic", "description", "sounds"]
    assert all(torch.equal(a, b) for name in one for a, b in zip(one[name], again[name]))
    item, draw = rows.batches.items[0], np.random.default_rng(1)
    text = rows.words(item.id, draw)
    bins, _ = rows.sounds[item.id]
    assert rows.row(item, np.random.default_rng(1))["sounds"].tolist() == [bins[name] for name in NAMES]
    assert all(any(wording in text for wording in WORDS[name][bins[name]]) for name in NAMES)
    values = described.heard(rows.batches.items, built["acoustic"], 3, None)
    assert [list(rows.sounds[i.id][0].values()) for i in rows.batches.items] == attributes.fitted(values).of(values).tolist()


def test_in_the_control_everyone_is_described_as_another():
    assert all(i != j for n in (2, 3, 40) for i, j in enumerate(another(n, 0)))
    assert sorted(another(40, 0)) == list(range(40))
    own, others = data()[0], data(shuffled=True)[0]
    moved = another(len(own.batches.items), 0)
    items = own.batches.items
    assert all(others.sounds[items[i].id] == own.sounds[items[j].id] for i, j in enumerate(moved))
    assert others.sounds != own.sounds


def test_attributes_are_measured_once_and_those_of_other_frames_anew(tmp_path, monkeypatch):
    rows, built = data()
    items, codec = rows.batches.items[:3], built["acoustic"]
    first = described.heard(items, codec, 3, str(tmp_path))
    monkeypatch.setattr(attributes, "of_codes", lambda *_: torch.full((4,), -1.0))
    assert torch.equal(described.heard(items, codec, 3, str(tmp_path)), first)
    assert (described.heard(items, codec, 2, str(tmp_path)) == -1).all()
    items[0].codes = items[0].codes[:, :-1]
    assert (described.heard(items, codec, 3, str(tmp_path))[:, 0] == -1).tolist() == [True, False, False]


def test_the_recipe_is_trained_loaded_and_says_frames_that_sound(tmp_path):
    train_recipe(RECIPE, "lm", tmp_path, small=True, quiet=True)
    loaded = model.load(tmp_path)
    lm, letters = loaded.stages["lm"], loaded.tokenizers["description"]
    lm.config.cap = 3.0
    rows = {"text": [torch.arange(1, 5), torch.arange(1, 4)], "description": [letters.encode("Someone speaks slowly."), letters.encode("")]}
    said = lm.run(rows, [0, 1])["acoustic"]
    assert all(torch.equal(lm.run(row(rows, i), [i])["acoustic"][0], said[i]) for i in (0, 1))


ASKED = parler.requests(["one", "two", "three"], 3, 0)
EDGES = Bins({name: [1.0, 2.0] for name in NAMES})


def told(values) -> dict:
    return parler.figures([row | {"values": [values(row)] * 4, "stop": "end"} for row in ASKED], EDGES)


def test_the_study_s_figures_are_one_for_who_does_as_asked_and_chance_for_who_does_not_listen():
    assert len(ASKED) == 3 * 4 * 3 and len({row["description"] for row in ASKED if row["text"] == "one"}) == 12
    follows, contrary, deaf = told(lambda row: row["bin"] + 0.5), told(lambda row: 2.5 - row["bin"]), told(lambda row: 1.5)
    for name in NAMES:
        assert follows[f"{name}: in order"].value == follows[f"{name}: right bin"].value == 1
        assert contrary[f"{name}: in order"].value == -1 and contrary[f"{name}: right bin"].value == pytest.approx(1 / 3)
        assert deaf[f"{name}: in order"].value == 0 == deaf["in order by chance"].value
        assert deaf[f"{name}: right bin"].value == pytest.approx(deaf["right bin by chance"].value)
        assert len(follows[f"{name}: in order"].parts) == len(follows["right bin by chance"].parts) == 3


def test_the_study_asks_in_words_that_were_not_heard_and_only_the_attribute_in_question_changes():
    for one, two in ((0, 1), (1, 2)):
        a, b = ASKED[one]["description"], ASKED[two]["description"]
        assert a.replace(WORDS["rate"][one][-1], WORDS["rate"][two][-1]) == b


@pytest.mark.parametrize("name", STUDY.VARIANTS)
def test_a_small_study_is_measured_and_every_claim_has_its_figures(name, tmp_path):
    study = STUDY.small()
    train(study.variants[name](0, tmp_path), tmp_path, quiet=True)
    items = [Item("a", "x", "so it was said", torch.zeros(1, 1), np.zeros(1)), Item("b", "x", "no", torch.zeros(1, 1), np.zeros(1))]
    figures = study.measure(tmp_path, items, 0)
    assert {figure for claim in study.claims for _, figure in (claim.one, claim.other)} <= set(figures)
    assert len(figures["rate: in order"].parts) == 1 and (tmp_path / "described.json").exists()
    with pytest.raises(SlmError, match="has 4 to 9 words"):
        study.measure(tmp_path, items[1:], 0)


def test_a_reader_that_must_tell_how_a_recording_sounds_learns_to_tell_descriptions_apart():
    """Of the codes alone it learns nothing here: they are the same in both rows."""
    torch.manual_seed(0)
    reader = Description.Config(reader=Transformer.Config(12, 1, 2, causal=False), attributes=2)
    stage = LM.Config(PARTS, Transformer.Config(16, 2, 2, memory=12), description=reader).build(STREAMS)
    silent = [torch.zeros(3, 4, dtype=torch.long)] * 2
    rows = {"text": [torch.tensor([1, 2])] * 2, "acoustic": silent, "description": letters("low", "slow")}
    told = rows | {"sounds": [torch.tensor([0, 2]), torch.tensor([1, 2])]}
    assert set(stage.loss(rows)) == {"acoustic"} and set(stage.loss(told)) == {"acoustic", "sounds"}
    assert torch.equal(stage.loss(rows)["acoustic"], stage.loss(told)["acoustic"])
    optim = torch.optim.Adam(stage.parameters(), 0.01)
    for _ in range(60):
        optim.zero_grad()
        sum(stage.loss(told).values()).backward()
        optim.step()
    assert stage.loss(told)["sounds"] < 0.05
    assert stage.loss(told | {"sounds": told["sounds"][::-1]})["sounds"] > 1, "it is the words that tell"


def test_what_a_description_tells_does_not_depend_on_its_batch_mates():
    reader = loud(Description.Config(reader=Transformer.Config(12, 1, 2, causal=False), attributes=2).build(256))
    alone = [reader.surprise(reader(letters(text)), [torch.tensor([0, 1])]) for text in ("low", "a much longer one")]
    both = reader.surprise(reader(letters("low", "a much longer one")), [torch.tensor([0, 1])] * 2)
    assert torch.isclose(both, sum(alone) / 2, atol=1e-6)
