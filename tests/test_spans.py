"""Text and speech in turns: told and untold without loss, and said the same whether the text comes at once or bit by bit."""

import itertools
import math
import random

import pytest
import torch

from slm.backbone.mamba2 import Mamba2
from slm.backbone.transformer import Transformer
from slm.condition.voice import Voice
from slm.errors import SlmError
from slm.stage.feeding import Saying
from slm.stage.interleaved import Interleaved
from slm.stage.lm import Stream
from slm.stream.sample import Sampling
from slm.stream.spans import Cursor, Spans, tell, untell, walk
from slm.stream.vocabulary import Vocabulary

NAMES = ("text", "acoustic.0")
VOCABULARY = Vocabulary({"text": 11, "acoustic.0": 7})
KINDS = {
    "by number": Spans(2, 3),
    "by one": Spans(1, 1),
    "by alignment": Spans(3, None),
    "by word": Spans(None, None),
    "text first": Spans(99, 1),
}
BACKBONES = {"Transformer": Transformer.Config(32, 2, 2), "Mamba-2": Mamba2.Config(32, 2, headdim=16, d_state=8, chunk=8)}
BACKBONES["Transformer told places"] = BACKBONES["Transformer"]
PLACES = {"text": 1.0, "acoustic": 0.2}


def shares(total: int, count: int, least: int, draw: random.Random) -> list[int]:
    """`total` in `count` random parts of at least `least` each."""
    cuts = sorted(draw.choices(range(total - least * count + 1), k=count - 1))
    return [b - a + least for a, b in zip([0, *cuts], [*cuts, total - least * count])]


def example(L: int, T: int, seed: int) -> dict[str, torch.Tensor]:
    draw = random.Random(seed)
    words = shares(L, draw.randint(1, L), 1, draw)
    row = {"text": [draw.randrange(11) for _ in range(L)], "acoustic": [draw.randrange(7) for _ in range(T)]}
    return {name: torch.tensor(x, dtype=torch.long) for name, x in (row | {"duration": shares(T, L, 0, draw), "words": words}).items()}


def durations_of(plan: list[tuple[int, int]]) -> list[int]:
    """Frames of each token such that spans by alignment come out as planned: all with the last token of a span."""
    durations = []
    for tokens, frames in plan:
        durations += [0] * (tokens - 1) + [frames] if tokens else []
    return durations


def planned(spans: Spans, row: dict[str, torch.Tensor]) -> list[tuple[int, int]]:
    return spans.plan(len(row["text"]), len(row["acoustic"]), row["duration"].tolist(), row["words"].tolist())


# spans


def test_a_stream_equals_the_one_written_by_hand():
    h, e, a, b = (VOCABULARY.range("text")[0] + i for i in range(4))
    x = VOCABULARY.range("acoustic.0")[0]
    text, audio, eos = VOCABULARY.marker("text"), VOCABULARY.marker("acoustic"), VOCABULARY.eos
    letters, codes = torch.arange(3), torch.arange(5) % 7

    def told(plan, letters=letters, codes=codes):
        return tell(letters, codes, plan, VOCABULARY, NAMES).tolist()

    assert told(Spans(2, 3).plan(3, 5)) == [text, h, e, audio, x, x + 1, x + 2, text, a, eos, audio, x + 3, x + 4, eos]
    assert told(Spans(1, 3).plan(3, 5)) == [text, h, audio, x, x + 1, x + 2, text, e, a, eos, audio, x + 3, x + 4, eos], "frames run out"
    assert told(Spans(2, None).plan(3, 5, [1, 0, 4])) == [text, h, e, audio, x, text, a, eos, audio, *range(x + 1, x + 5), eos]
    by_word = [text, h, audio, x, x + 1, text, e, a, audio, x + 2, x + 3, x + 4, text, eos, audio, eos]
    assert told(Spans(None, None).plan(3, 5, [2, 2, 1], [1, 2])) == by_word
    assert told(Spans(3, 5).plan(3, 5)) == [text, h, e, a, audio, *range(x, x + 5), text, eos, audio, eos]
    assert told(Spans(2, 3).plan(2, 0), torch.tensor([0, 3]), codes[:0]) == [text, h, b, eos, audio, eos]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_told_can_be_untold_and_each_id_was_legal(kind):
    spans, draw = KINDS[kind], random.Random(0)
    for seed in range(150):
        row = example(draw.randint(1, 14), draw.randint(0, 25), seed)
        plan = planned(spans, row)
        ids = tell(row["text"], row["acoustic"], plan, VOCABULARY, NAMES)
        text, codes, found = untell(ids, spans, VOCABULARY, NAMES)
        assert torch.equal(text, row["text"]) and torch.equal(codes, row["acoustic"]) and found == plan
        assert all(name in legal for name, legal in walk(ids, spans, VOCABULARY, NAMES))


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_is_legal_leads_to_a_stream_that_would_be_told(kind):
    spans, draw = KINDS[kind], random.Random(1)
    for _ in range(200):
        cursor, kinds = Cursor(spans, *NAMES), []
        while legal := cursor.legal():
            kinds.append(draw.choice(legal))
            cursor.hear(kinds[-1])
        ids = torch.tensor([VOCABULARY.range(name)[0] for name in kinds])
        text, codes, plan = untell(ids, spans, VOCABULARY, NAMES)
        assert torch.equal(tell(text, codes, plan, VOCABULARY, NAMES), ids)
        words = [tokens for tokens, _ in plan if tokens]
        assert plan == spans.plan(len(text), len(codes), durations_of(plan), words)


def test_every_number_of_tokens_and_frames_has_its_own_stream_of_legal_steps():
    """All walks of a small size: as many as pairs (L, T), none twice."""
    found = set()

    def go(kinds: list[str]) -> None:
        cursor = Cursor(Spans(2, 3), *NAMES)
        for name in kinds:
            cursor.hear(name)
        if cursor.over:
            found.add((kinds.count("text"), kinds.count("acoustic.0")))
            ends.append(kinds)
        elif len(kinds) < 16:
            for name in cursor.legal():
                go([*kinds, name])

    ends: list[list[str]] = []
    go([])
    sizes = {(L, T): len(tell(torch.zeros(L).long(), torch.zeros(T).long(), Spans(2, 3).plan(L, T), VOCABULARY, NAMES))
             for L, T in itertools.product(range(1, 17), range(17))}  # fmt: skip
    assert len(ends) == len(found) and found == {pair for pair, steps in sizes.items() if steps <= 16}


def test_speech_begins_after_as_many_tokens_as_a_span_holds_and_never_waits_for_later_text():
    codes = torch.zeros(30).long()
    for L in (2, 3, 8):
        ids = tell(torch.arange(L), codes, Spans(2, 3).plan(L, 30), VOCABULARY, NAMES)
        assert VOCABULARY.name_of(int(ids[4])) == "acoustic.0" and torch.equal(ids[:7], tell(
            torch.arange(2), codes, Spans(2, 3).plan(2, 30), VOCABULARY, NAMES)[:7])  # fmt: skip


def test_what_cannot_be_told_is_an_error():
    with pytest.raises(SlmError, match="no text"):
        Spans(2, 3).plan(0, 5)
    with pytest.raises(SlmError, match="words have no fixed length"):
        Spans(None, 3)
    with pytest.raises(SlmError, match="spans.frames is 0"):
        Spans(2, 0)
    with pytest.raises(SlmError, match="durations of the 3 tokens that add up to 5"):
        Spans(2, None).plan(3, 5, [1, 1, 1])
    with pytest.raises(SlmError, match="number of tokens of each word, 3"):
        Spans(None, None).plan(3, 5, [1, 1, 3], [2, 2])
    with pytest.raises(SlmError, match="cannot tell 3 and 5"):
        tell(torch.arange(3), torch.arange(5), [(2, 5)], VOCABULARY, NAMES)
    whole = tell(torch.arange(3), torch.arange(5), Spans(2, 3).plan(3, 5), VOCABULARY, NAMES)
    with pytest.raises(SlmError, match="breaks off"):
        untell(whole[:-1], Spans(2, 3), VOCABULARY, NAMES)
    with pytest.raises(SlmError, match="cannot stand here"):
        untell(whole, Spans(2, 2), VOCABULARY, NAMES)
    with pytest.raises(SlmError, match="acoustic.0 cannot stand here.* nothing may"):
        untell(torch.cat([whole, whole[4:5]]), Spans(2, 3), VOCABULARY, NAMES)


# the stage


def stage(kind: str = "by number", backbone: str = "Transformer", **more) -> Interleaved:
    torch.manual_seed(0)
    more = more | ({"places": PLACES} if backbone.endswith("places") else {})
    config = Interleaved.Config(KINDS[kind], backbone=BACKBONES[backbone], sampling=Sampling(1.0, top_p=1.0), cap=5, **more)
    built = config.build({"text": Stream(11), "acoustic": Stream(7, 4)}).eval()
    with torch.no_grad():
        built.lm.head.weight *= 10  # far from a fair die, so that what is heard matters
        built.lm.head.bias[built.vocabulary.eos] = -1.0
    return built


def batch(sizes: list[tuple[int, int]]) -> dict[str, list[torch.Tensor]]:
    rows = [example(L, T, i) for i, (L, T) in enumerate(sizes)]
    found = {name: [row[name] for row in rows] for name in rows[0]}
    return found | {"acoustic": [torch.stack([row, row * 0]) for row in found["acoustic"]]}


SIZES = [(5, 9), (1, 0), (8, 5), (3, 14), (6, 9)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_text_that_comes_bit_by_bit_is_said_as_if_it_had_been_known(backbone, kind):
    one, draw = stage(kind, backbone), random.Random(0)
    for seed in range(3):
        row = example(draw.randint(5, 9), 0, seed)
        whole = one.run({name: [row[name]] for name in ("text", "words")}, [seed])
        feeding, said = one.speak(seed), []
        pieces = row["words"].tolist() if kind == "by word" else shares(len(row["text"]), 4, 0, draw)
        for piece in row["text"].split(pieces):
            assert feeding.stop is None or feeding.stop != "end"
            said += feeding.feed(piece)
        early = len(said)
        said += feeding.end()
        assert said == whole["acoustic"][0][0].tolist() and feeding.stop == whole["stop"][0] and said
        assert (early > 0) == (kind != "text first")


def test_frames_come_as_soon_as_their_text_is_there_and_what_is_not_taken_is_not_lost():
    one = stage()
    feeding = one.speak(3)
    assert list(feeding.feed(torch.tensor([4]))) == [] and len(list(feeding.feed(torch.tensor([5])))) == 3
    assert list(feeding.feed(torch.tensor([6]))) == []
    first = next(feeding.feed(torch.tensor([7, 8, 9])))
    rest = [*feeding.feed(torch.tensor([1])), *feeding.end()]
    whole = one.run({"text": [torch.tensor([4, 5, 6, 7, 8, 9, 1])]}, [3])["acoustic"][0][0].tolist()
    assert [first, *rest] == whole[3:] and feeding.stop is not None and list(feeding.end()) == []
    with pytest.raises(SlmError, match="behind the end"):
        feeding.feed(torch.tensor([1]))
    with pytest.raises(SlmError, match="no text to say"):
        one.speak(0).end()


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_row_that_waits_hears_nothing_while_others_go_on(backbone):
    one, texts = stage("by number", backbone), [torch.arange(n) % 11 for n in (7, 4, 9)]
    saying, draw = Saying(one, [0, 1, 2], None), random.Random(3)
    for _ in range(12):
        row = draw.randrange(3)
        waiting = saying.rows[row]
        if not waiting.closed:
            fed = waiting.cursor.total + len(waiting.waiting)
            waiting.feed(texts[row][fed : fed + 2])
            waiting.close() if fed + 2 >= len(texts[row]) else None
        while saying.step():
            pass
    for row in (r for r in saying.rows if not r.closed):
        row.feed(texts[saying.rows.index(row)][row.cursor.total + len(row.waiting) :])
        row.close()
    while saying.step():
        pass
    for r, row in enumerate(saying.rows):
        assert row.said == one.run({"text": [texts[r]]}, [r])["acoustic"][0][0].tolist() and len(row.said) > 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_row_is_said_and_learned_alike_alone_and_among_others(backbone, kind):
    one, rows = stage(kind, backbone, both=True), batch(SIZES)
    given, seeds = {name: rows[name] for name in ("text", "words")}, list(range(len(SIZES)))
    together = one.run(given, seeds)
    for r in seeds:
        alone = one.run({name: [x[r]] for name, x in given.items()}, [r])
        assert torch.equal(alone["acoustic"][0], together["acoustic"][r]) and alone["stop"][0] == together["stop"][r]
    assert "end" in together["stop"] and len({row.shape[1] for row in together["acoustic"]}) > 1
    losses = {name: [] for name in ("acoustic", "text")}
    counts = {name: [] for name in losses}
    for r in seeds:
        alone = {name: [x[r]] for name, x in rows.items()}
        for name, loss in one.loss(alone).items():
            losses[name].append(loss.item())
            counts[name].append(learned(one, alone, name))
    for name, loss in one.loss(rows).items():
        assert loss.item() == pytest.approx(sum(a * n for a, n in zip(losses[name], counts[name])) / sum(counts[name]), abs=2e-5)


def learned(one: Interleaved, rows: dict, name: str = "acoustic") -> int:
    """How many ids the loss of `name` is a mean of."""
    index = 1 if name == "acoustic" else 0
    return sum(int(cells.sum()) for names, cells in one.told(rows).choices.items() if one.names[index] in names)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_what_was_said_costs_in_all_what_its_draws_cost(backbone, kind):
    """Step by step with a state, and once more at once without one."""
    one, tried = stage(kind, backbone), 0
    for seed in range(60):
        row = example(4 + seed % 3, 0, seed)
        said = one.run({name: [row[name]] for name in ("text", "words")}, [seed])
        codes = said["acoustic"][0]
        if said["stop"] != ["end"]:
            continue
        plan = shared_as_said(one, row, seed)
        durations = durations_of(plan)
        rows = {"text": [row["text"]], "words": [row["words"]], "acoustic": [codes], "duration": [torch.tensor(durations)]}
        cost, count = one.loss(rows)["acoustic"].item(), learned(one, rows)
        assert cost * count == pytest.approx(said["nats"][0], rel=1e-4)
        tried += 1
        if tried == 3:
            return
    assert tried == 3


def shared_as_said(one: Interleaved, row: dict, seed: int) -> list[tuple[int, int]]:
    """Tokens and frames of each span, as the model chose them: found by feeding what a span holds at a time."""
    n, feeding, plan = one.config.spans.text, one.speak(seed), []
    for piece in row["text"].split(row["words"].tolist() if n is None else n):
        plan.append((len(piece), len(list(feeding.feed(piece)))))
    said = len(list(feeding.end()))
    whole = n is None or plan[-1][0] == n
    return [*plan, (0, said)] if whole else [*plan[:-1], (plan[-1][0], plan[-1][1] + said)]


@pytest.mark.parametrize("backbone", BACKBONES)
def test_all_there_is_to_tell_has_a_likelihood_of_one(backbone):
    """One token and one code, so that a stream is how many there are of each; few are long, as <eos> is likely."""
    torch.manual_seed(0)
    config = Interleaved.Config(Spans(1, 2), backbone=BACKBONES[backbone], both=True)
    one = config.build({"text": Stream(1), "acoustic": Stream(1)}).eval().double()
    one.lm.head.bias.data[one.vocabulary.eos] = 3.0
    total = {}
    for L, T in itertools.product(range(1, 8), range(9)):
        rows = {"text": [torch.zeros(L).long()], "acoustic": [torch.zeros(T).long()]}
        total[L, T] = math.exp(-sum(loss.item() * learned(one, rows, name) for name, loss in one.loss(rows).items()))
    assert sum(total.values()) == pytest.approx(1, abs=1e-5) and sum(p for (L, T), p in total.items() if L > 1 and T > 1) > 1e-3


def test_tokens_and_frames_stand_behind_as_many_of_their_own():
    one = stage("by number", "Transformer told places")
    at = one.where(tell(torch.arange(5), torch.arange(7), KINDS["by number"].plan(5, 7), one.vocabulary, one.names)[None])
    text = [[0, 1, 2], [2, 3, 4], [4, 5, 5]]  # <text> and two tokens, twice, then one and <eos>
    codes = [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 7]]
    wanted = [place for a, b in zip(text, codes) for place in (*a, *(0.2 * frame for frame in b))]
    assert torch.allclose(at[0], torch.tensor(wanted))
    assert stage("by number").where(torch.zeros(1, 3).long()) is None
    with pytest.raises(SlmError, match="places are told to a Transformer"):
        stage("by number", "Mamba-2", places=PLACES)


def test_text_is_learned_only_where_both_are():
    rows = batch(SIZES)
    alone, both = stage().loss(rows), stage(both=True).loss(rows)
    assert list(alone) == ["acoustic"] and sorted(both) == ["acoustic", "text"] and alone["acoustic"].item() == both["acoustic"].item()
    one = stage()
    told, text = one.told(rows), one.vocabulary.range("text")
    learned_ids = torch.cat([told.ids[..., 0][cells] for cells in told.choices.values()])
    assert not ((learned_ids >= text[0]) & (learned_ids < text[1])).any()
    assert sum(int(c.sum()) for c in told.choices.values()) == sum(T for _, T in SIZES) + len(SIZES) - 1, "(8, 5) must end where it does"


def test_speech_always_ends_and_says_why():
    one = stage("by alignment")
    with torch.no_grad():
        one.lm.head.bias[[one.vocabulary.eos, one.vocabulary.marker("text")]] = -1e4
    said = one.run({"text": [torch.arange(4), torch.arange(8)]}, [0, 1])
    assert said["stop"] == ["length", "length"] and [row.shape[1] for row in said["acoustic"]] == [15, 15], "of the three tokens heard"
    one = stage()
    with torch.no_grad():
        one.lm.head.bias[one.vocabulary.range("acoustic.0")[0]] = 1e4
        one.config.cap = 100
    assert one.run({"text": [torch.arange(6)]}, [0])["stop"] == ["loop"]
    with pytest.raises(SlmError, match="cap = 1 frames"):
        Interleaved.Config(Spans(2, 3), cap=1).build({"text": Stream(11), "acoustic": Stream(7, 4)})


def test_a_voice_is_heard_in_every_step():
    one = stage(voice=Voice.Config(latent=6, width=8, dim=32))
    prompts, text = [torch.randn(9, 6), torch.randn(5, 6)], torch.arange(7)
    a, b = (one.run({"text": [text], "prompt": [p]}, [0]) for p in prompts)
    assert not torch.equal(a["acoustic"][0], b["acoustic"][0])
    together = one.run({"text": [text] * 2, "prompt": prompts}, [0, 0])
    assert torch.equal(together["acoustic"][0], a["acoustic"][0]) and torch.equal(together["acoustic"][1], b["acoustic"][0])
    feeding = one.speak(0, prompts[0])
    assert [*feeding.feed(text[:3]), *feeding.feed(text[3:]), *feeding.end()] == a["acoustic"][0][0].tolist()
    with pytest.raises(SlmError, match="needs a prompt"):
        one.speak(0)
