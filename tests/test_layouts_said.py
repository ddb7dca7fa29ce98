"""Every layout can be said: what generation says is as likely as learning thinks, legal, complete, and a row's own affair."""

from pathlib import Path

import pytest
import torch

from slm import model
from slm.backbone.mamba2 import Mamba2
from slm.backbone.transformer import Transformer
from slm.condition.guide import Guide
from slm.condition.voice import Voice
from slm.errors import SlmError
from slm.stage import say
from slm.stage.lm import LM, Stream
from slm.stage.multiscale import Depth
from slm.stream.layout import LAYOUTS
from slm.stream.part import Part, merge
from slm.stream.sample import Sampling, guided, sample
from slm.train.run import train_recipe

STREAMS = {"text": Stream(9), "duration": Stream(8), "semantic": Stream(7), "acoustic": Stream(5, 3)}
BACKBONES = {"transformer": Transformer.Config(16, 1, 2), "mamba2": Mamba2.Config(16, 1, headdim=8, d_state=8)}
BOTH = [(layout, name) for layout in LAYOUTS for name in BACKBONES if name == "transformer" or layout in ("delay", "coarse_first")]
OPEN = [name for name in LAYOUTS if name in ("flat", "parallel", "delay", "coarse_first_4")]
TEXT = Part("text", learn=False)
DEPTH = Depth.Config(Transformer.Config(8, 1, 2))


def built(parts, backbone="transformer", **more) -> LM:
    torch.manual_seed(0)
    lm = LM.Config(parts, BACKBONES[backbone], **more).build(STREAMS).eval()
    torch.nn.init.normal_(lm.head.weight, std=0.5)  # surer than it would begin
    return lm


def texts(*lengths: int) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    return [torch.randint(9, (n,), generator=draw) for n in lengths]


def codes(card: int, *shapes: tuple[int, ...]) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(2)
    return [torch.randint(card, shape, generator=draw) for shape in shapes]


def dictated(monkeypatch, lm: LM, batch: dict, wanted: list[Part]) -> list[float]:
    """Log-probability of each wanted part of the batch, as generation gives it while it is made to say just that."""
    merged = merge(lm.parts, batch, lm.vocabulary)
    queue: dict[int, list[int]] = {}
    for row, spans in enumerate(merged.spans):
        cells = [merged.ids[row, start : merged.until(row, i)].flatten() for i, (name, start, _) in enumerate(spans)]
        ids = torch.cat([c for c, part in zip(cells, lm.parts) if part in wanted])
        queue[row] = ids[ids >= 0].tolist()
    chances = {part.name: 0.0 for part in wanted}
    ranges = [lm.vocabulary.range(name) for name in lm.vocabulary.names]
    current: list[str] = []

    def forced(scores, sampling, generators, history=None):
        drawn = []
        for row, generator in zip(scores.log_softmax(-1), generators):
            id = queue[generator.initial_seed()].pop(0)
            begin = next((a for a, b in ranges if a <= id < b), None)
            drawn.append(len(row) - 1 if begin is None else id - begin)
            chances[current[-1]] += float(row[drawn[-1]])
        return torch.tensor(drawn)

    say_part = say._say_part
    monkeypatch.setattr(say, "sample", forced)
    monkeypatch.setattr(say, "_say_part", lambda talk, part, batch: (current.append(part.name), say_part(talk, part, batch))[1])
    given = {name: rows for name, rows in batch.items() if name not in chances}
    said = lm.run(given, list(range(len(merged.spans))))
    for part in wanted:
        assert all(torch.equal(a, b) for a, b in zip(said[part.name], batch[part.name])), "what was dictated must have been said"
    assert not any(queue.values()) and said["stop"] == ["end"] * len(merged.spans)
    return list(chances.values())


def as_learned(lm: LM, batch: dict, wanted: list[Part]) -> list[float]:
    merged, losses = merge(lm.parts, batch, lm.vocabulary), lm.loss(batch)
    return [-float(losses[p.name].detach()) * int((merged.learn & merged.of(p.name)[..., None]).sum()) for p in wanted]


@pytest.mark.parametrize("depth", [None, DEPTH], ids=["", "depth"])
@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_said_is_as_likely_as_it_is_learned(layout, backbone, depth, monkeypatch):
    """Two parts, of which the first ends by itself; a ragged batch; step by step with a state, and at once."""
    first, second = (
        Part("semantic", end=True),
        Part("acoustic", layout=layout, end=layout in OPEN, like=None if layout in OPEN else "semantic"),
    )
    lm = built([TEXT, first, second], backbone, depth=depth)
    batch = {"text": texts(3, 2, 4), "semantic": codes(7, (4,), (2,), (3,)), "acoustic": codes(5, (3, 4), (3, 2), (3, 3))}
    said, learned = dictated(monkeypatch, lm, batch, [first, second]), as_learned(lm, batch, [first, second])
    assert said == pytest.approx(learned, abs=1e-3) and min(map(abs, learned)) > 5


@pytest.mark.parametrize("layout", LAYOUTS)
def test_with_durations_every_step_is_told_its_phone_as_in_learning(layout, monkeypatch):
    part = Part("acoustic", layout=layout)
    parts = [TEXT, Part("duration", learn=False), part]
    lm = built(parts, guide=Guide.Config(), voice=Voice.Config(4, 8, 16))
    batch = {
        "text": texts(3, 2),
        "duration": [torch.tensor([1, 2, 1]), torch.tensor([3, 2])],
        "acoustic": codes(5, (3, 4), (3, 5)),
        "prompt": [torch.randn(6, 4), torch.randn(3, 4)],
    }
    said, learned = dictated(monkeypatch, lm, batch, [part]), as_learned(lm, batch, [part])
    assert said == pytest.approx(learned, abs=1e-3)


def speaking(layout: str, backbone: str, **more) -> tuple[LM, dict]:
    """An LM of two parts in the layout: of unknown length where that can be, and greedy behind it."""
    known = layout not in OPEN
    first = Part("semantic") if known else Part("acoustic", layout=layout, end=True)
    second = Part("acoustic", layout=layout, end=True, like="semantic") if known else Part("semantic", like="acoustic")
    sampling = {"acoustic": Sampling(1.0, 0, 1.0), "semantic": Sampling(1.0, 0, 1.0)}
    parts = [TEXT, first, second, Part("duration", like="text")]
    sampling["duration"] = Sampling(temperature=0)
    return built(parts, backbone, sampling=sampling, cap=3, tell=("duration",), **more), {"text": texts(3, 2, 5)}


@pytest.mark.parametrize("layout, backbone", BOTH)
def test_a_row_says_alone_what_it_says_in_a_batch(layout, backbone):
    lm, batch = speaking(layout, backbone, depth=DEPTH if layout == "parallel" else None)
    lm.config.sampling["acoustic"] = Sampling(1.0, 0, 0.9, repetition=1.2, repetition_window=4, again=0.2, again_window=4)
    together = lm.run(batch, [5, 6, 7])
    assert len({row.shape[-1] for row in together["acoustic"]}) > 1, "rows should end at different steps"
    for row in range(3):
        alone = lm.run({"text": batch["text"][row : row + 1]}, [5 + row])
        for name in ("acoustic", "semantic", "duration"):
            assert torch.equal(alone[name][0], together[name][row]), (name, row)
        assert alone["stop"] == [together["stop"][row]]


@pytest.mark.parametrize("layout, backbone", BOTH)
def test_what_was_said_is_remembered_as_if_it_had_been_given(layout, backbone):
    """The part behind is the same whether the model said the parts before it or was given them: <eos>, drain and all."""
    lm, batch = speaking(layout, backbone)
    said = lm.run(batch, [0, 1, 2])
    given = lm.run({name: said[name] for name in ("text", "semantic", "acoustic")}, [0, 1, 2])
    for row, other in zip(said["duration_chances"], given["duration_chances"], strict=True):
        torch.testing.assert_close(row, other, atol=1e-5, rtol=1e-4)
    for row in range(3):
        assert said["acoustic"][row].shape == (3, said["semantic"][row].shape[-1])


@pytest.mark.parametrize("layout", OPEN)
def test_a_part_without_durations_ends_by_itself_at_its_cap_or_when_it_goes_in_circles(layout):
    lm, batch = speaking(layout, "transformer")
    eos, first = lm.vocabulary.eos, lm.vocabulary.range("acoustic.0")[0]
    with torch.no_grad():
        lm.head.weight[eos], lm.head.bias[eos] = 0, -1e4
        said = lm.run(batch, [0, 1, 2])
        assert said["stop"] == ["length"] * 3 and [row.shape for row in said["acoustic"]] == [(3, 3 * n) for n in (3, 2, 5)]
        lm.head.weight[[first, first + 5, first + 10]] = 0
        lm.head.bias[[first, first + 5, first + 10]] = 1e4
        lm.config.cap = 40
        said = lm.run(batch, [0, 1, 2])
        assert said["stop"] == ["loop"] * 3 and all(64 <= row.shape[1] <= 66 and not row.any() for row in said["acoustic"])
        given = lm.run({name: said[name] for name in ("text", "acoustic")}, [0, 1, 2])
        assert given["stop"] == ["end"] * 3
        lm.head.bias[eos] = 1e5
        said = lm.run(batch, [0, 1, 2])
        assert said["stop"] == ["end"] * 3 and [row.shape for row in said["acoustic"]] == [(3, 0)] * 3


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_id_is_drawn_among_those_of_its_level(layout, monkeypatch):
    """Levels of different cards would not do; what is asked of `sample` is one score a legal id, and <eos> only where a frame begins."""
    lm, batch = speaking(layout, "transformer")
    sizes = []
    monkeypatch.setattr(say, "sample", lambda scores, *rest, **more: (sizes.append(scores.shape[1]), sample(scores, *rest, **more))[1])
    said = lm.run(batch, [0, 1, 2])["acoustic"]
    assert all(0 <= int(row.min()) and int(row.max()) < 5 for row in said if row.numel())
    assert (6 in sizes) == (layout in OPEN) and set(sizes) <= {5, 6, 7, 8}


def test_a_part_told_level_by_level_needs_its_number_of_frames():
    lm = built([TEXT, Part("acoustic", layout="coarse_first", end=True)])
    with pytest.raises(SlmError, match="'acoustic' is laid out 'coarse_first'.*must be known"):
        lm.run({"text": texts(3)}, [0])
    with pytest.raises(SlmError, match="as many frames as 'semantic'"):
        built([TEXT, Part("acoustic", like="semantic")]).run({"text": texts(3)}, [0])
    with pytest.raises(SlmError, match="give it 'text'"):
        built([Part("text"), Part("semantic")]).run({}, [0])


def test_guidance_makes_the_voice_count_for_more(monkeypatch):
    parts = [TEXT, Part("acoustic", layout="delay", like="text")]
    lm = built(parts, voice=Voice.Config(4, 8, 16), guidance=2.5, sampling={"acoustic": Sampling(1.0, 0, 1.0)})
    batch = {"text": texts(3, 2), "prompt": [torch.randn(6, 4), torch.randn(3, 4)]}
    heard = []
    monkeypatch.setattr(say, "sample", lambda scores, *rest, **more: (heard.append(scores), sample(scores, *rest, **more))[1])
    said = lm.run(batch, [0, 1])
    merged = merge(parts, said, lm.vocabulary)
    legal = lm.legal(parts[1], 2)
    for row, last in ((0, 3), (1, 2)):  # the last level of each row's last frame, which only it tells
        step = merged.spans[row][1][1] + last + 1
        scores = []
        for voice in (lm.hear(batch), torch.zeros(2, 16)):
            hidden, _ = lm.backbone(lm.inputs(merged.ids, lm.hints(said, merged, voice)))
            scores.append(lm.score(hidden[row, step - 1], legal))
        wanted = guided(*scores, 2.5)
        assert any((h - wanted).abs().amax(-1).min() < 1e-4 for h in heard if h.shape[1] == 5)
        assert (scores[0] - wanted).abs().max() > 1e-2
    again = lm.run({name: rows[:1] for name, rows in batch.items()}, [0])
    assert torch.equal(again["acoustic"][0], said["acoustic"][0])
    lm.config.guidance = 1.0
    assert not torch.equal(lm.run(batch, [0, 1])["acoustic"][0], said["acoustic"][0])


def test_guidance_without_a_voice_is_refused_and_a_forgotten_voice_is_none():
    with pytest.raises(SlmError, match="about a voice"):
        built([TEXT, Part("semantic")], guidance=2.0)
    lm = built([TEXT, Part("semantic", like="text")], voice=Voice.Config(4, 8, 16), forget=1.0)
    batch = {"text": texts(3), "semantic": codes(7, (3,)), "prompt": [torch.randn(6, 4)]}
    other = batch | {"prompt": [torch.randn(6, 4)]}
    assert lm.loss(batch)["semantic"] != lm.loss(other)["semantic"]
    assert lm.train().loss(batch)["semantic"] == lm.loss(other)["semantic"]


def test_a_recipe_in_one_stage_is_trained_loaded_and_says_frames_that_sound(tmp_path):
    train_recipe(Path(__file__).parent.parent / "recipes/speech_lm/musicgen.py", "lm", tmp_path, small=True, quiet=True)
    loaded = model.load(tmp_path)
    lm, codec = loaded.stages["lm"], loaded.tokenizers["acoustic"]
    lm.config.cap = 3.0
    batch = {"text": [torch.arange(1, 5), torch.arange(1, 4)], "prompt": [torch.randn(9, 8), torch.randn(5, 8)]}
    said = lm.run(batch, [0, 1])
    assert all(reason in ("end", "length", "loop") for reason in said["stop"])
    for row, codes in enumerate(said["acoustic"]):
        assert torch.equal(lm.run({key: rows[row : row + 1] for key, rows in batch.items()}, [row])["acoustic"][0], codes)
        assert codes.shape[0] == 3 and codec.decode(codes[None]).shape[-1] == codes.shape[1] * codec.hop if codes.numel() else True


def test_the_study_s_figures_are_the_likelihood_of_whole_frames_and_a_distance_that_is_none_for_the_same_codes(tmp_path, monkeypatch):
    from slm.data.madeup import MadeUpUtterances
    from slm.study import layouts
    from slm.study.run import load, train

    recipe = load(Path(__file__).parent.parent / "recipes/study/layouts.py").small().variants["multiscale"](0, tmp_path)
    train(recipe, tmp_path, quiet=True)
    loaded = model.load(tmp_path)
    lm, codec = loaded.stages["lm"], loaded.tokenizers["acoustic"]
    spoken = MadeUpUtterances(count=3).build(loaded.tokenizers).batches.items
    batch = {"text": [u.text for u in spoken], "duration": [u.duration for u in spoken], "acoustic": [u.codes for u in spoken]}
    assert layouts.likelihood(lm, spoken).value == pytest.approx(3 * float(lm.loss(batch)["acoustic"]), rel=1e-4)
    far = layouts.distances(lm, codec, spoken, 0)
    assert far.value > 0.01 and len(far.parts) == 3
    monkeypatch.setattr(lm, "run", lambda given, seeds: {"acoustic": [u.codes for u in spoken]})
    assert layouts.distances(lm, codec, spoken, 0).value == 0
