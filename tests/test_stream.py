"""Streams of ids: layouts can be undone, ids never depend on key order, a row is drawn by its own dice."""

import pytest
import torch
from torch import nn

from slm.errors import SlmError
from slm.stream.layout import EMPTY, LAYOUTS, coarse_first, frame_of, frames, lay, legal, levels, open_ended, unlay
from slm.stream.part import Part, merge, take
from slm.stream.sample import Sampling, guided, looping, sample
from slm.stream.vocabulary import Vocabulary

SIZES = {"text": 55, "duration": 64, "semantic": 100, **{f"acoustic.{q}": 16 + q for q in range(12)}}

# Q=3, T=4: codes[q, t] has flat index 4q + t.
GOLDEN = {
    "flat": [[0], [4], [8], [1], [5], [9], [2], [6], [10], [3], [7], [11]],
    "coarse_first": [[0], [1], [2], [3], [4], [5], [6], [7], [8], [9], [10], [11]],
    "coarse_first_2": [[0], [4], [1], [5], [2], [6], [3], [7], [8], [9], [10], [11]],
    "coarse_first_4": [[0], [4], [8], [1], [5], [9], [2], [6], [10], [3], [7], [11]],
    "parallel": [[0, 4, 8], [1, 5, 9], [2, 6, 10], [3, 7, 11]],
    "delay": [[0, -1, -1], [1, 4, -1], [2, 5, 8], [3, 6, 9], [-1, 7, 10], [-1, -1, 11]],
}


@pytest.fixture
def vocabulary() -> Vocabulary:
    return Vocabulary(SIZES)


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


# layout


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_equals_the_table_written_by_hand(name):
    assert LAYOUTS[name](3, 4).tolist() == GOLDEN[name]


@pytest.mark.parametrize("T", [0, 1, 2, 5, 13])
@pytest.mark.parametrize("Q", [1, 2, 3, 8, 9])
@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_can_be_undone_and_says_where_each_level_is(name, Q, T):
    table = LAYOUTS[name](Q, T)
    codes = torch.randint(0, 1000, (2, 3, Q, T))
    steps = lay(codes, table)
    assert steps.shape == (2, 3, *table.shape) and (steps == EMPTY).sum() == 6 * (table == EMPTY).sum()
    assert torch.equal(unlay(steps, table, Q, T), codes)
    assert torch.equal(lay(codes, table, empty=7)[..., table == EMPTY], torch.full_like(steps[..., table == EMPTY], 7))
    assert frames(len(table), Q, LAYOUTS[name]) == T
    level_codes = torch.arange(Q)[:, None].expand(Q, T)
    assert torch.equal(levels(table, T), lay(level_codes, table))


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_code_is_never_told_before_a_coarser_level_of_its_frame(name):
    Q, T = 5, 6
    told_at = unlay(torch.arange(len(LAYOUTS[name](Q, T)))[:, None].expand(LAYOUTS[name](Q, T).shape), LAYOUTS[name](Q, T), Q, T)
    assert (told_at.diff(dim=0) >= 0).all() and (told_at.diff(dim=1) > 0).all()


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_step_is_about_the_frame_of_its_first_cell(name):
    for Q, T in ((1, 4), (3, 4), (3, 1)):
        table = LAYOUTS[name](Q, T)
        frames_told = [next(cell for cell in row if cell != EMPTY) % T for row in table.tolist()]
        assert frame_of(table, T).tolist() == frames_told
    assert frame_of(LAYOUTS["delay"](3, 0), 0).tolist() == [EMPTY, EMPTY]


def test_a_layout_is_open_ended_if_what_it_tells_does_not_depend_on_the_end():
    assert {name for name in LAYOUTS if open_ended(LAYOUTS[name], 3)} == {"flat", "parallel", "delay", "coarse_first_4"}
    assert all(open_ended(layout, 1) for layout in LAYOUTS.values())


def test_a_wrong_number_of_cells_or_steps_is_an_error():
    table = LAYOUTS["delay"](3, 4)
    with pytest.raises(SlmError, match="12 cells but the codes have 15"):
        lay(torch.zeros(3, 5, dtype=torch.long), table)
    with pytest.raises(SlmError, match="do not end in the table's shape"):
        unlay(torch.zeros(5, 3, dtype=torch.long), table, 3, 4)
    with pytest.raises(SlmError, match="7 steps hold no whole number of frames of 3"):
        frames(7, 3, LAYOUTS["flat"])
    with pytest.raises(SlmError, match="1 steps hold no whole number"):
        frames(1, 3, LAYOUTS["delay"])
    assert coarse_first(3)(4, 2).flatten().tolist() == [0, 2, 4, 1, 3, 5, 6, 7]


def test_the_legal_ids_of_a_step_are_the_codebooks_of_its_cells(vocabulary):
    row = levels(LAYOUTS["delay"](3, 4), 4)[4]  # EMPTY, 1, 2
    mask = legal(vocabulary, "acoustic", row)
    assert mask.shape == (3, vocabulary.size) and not mask[0].any()
    for column, level in ((1, 1), (2, 2)):
        start, stop = vocabulary.range(f"acoustic.{level}")
        assert mask[column].nonzero().flatten().tolist() == list(range(start, stop))
    assert not legal(vocabulary, "acoustic", torch.tensor([EMPTY])).any()
    with pytest.raises(SlmError, match="no level 12 of 'acoustic'"):
        legal(vocabulary, "acoustic", torch.tensor([12]))


# vocabulary


def test_every_id_has_one_name_and_the_ranges_tile_the_vocabulary(vocabulary):
    everything = [f"<{marker}>" for marker in ("pad", "bos", "eos", *vocabulary.streams)] + list(vocabulary.names)
    ids = [i for name in everything for i in range(*vocabulary.range(name))]
    assert ids == list(range(vocabulary.size))
    assert [vocabulary.name_of(i) for i in ids] == [name for name in everything for _ in range(*vocabulary.range(name))]
    for name in vocabulary.names:
        local = torch.arange(SIZES[name])
        assert torch.equal(vocabulary.to_local(name, vocabulary.to_global(name, local)), local)


def test_ids_do_not_depend_on_the_order_of_keys_and_levels_sort_as_numbers(vocabulary):
    other = Vocabulary(dict(reversed(SIZES.items())))
    assert other.hash == vocabulary.hash and other.names == vocabulary.names
    assert all(other.range(name) == vocabulary.range(name) for name in SIZES)
    assert vocabulary.names.index("acoustic.10") == vocabulary.names.index("acoustic.9") + 1
    assert (vocabulary.pad, vocabulary.bos, vocabulary.eos) == (0, 1, 2) and vocabulary.marker("acoustic") == 3


def test_the_hash_is_stable_and_changes_with_any_size_or_name(vocabulary):
    assert Vocabulary({"text": 3, "acoustic.0": 4}).hash == "7d17bac09ea57c94"
    assert len({Vocabulary(SIZES | {name: SIZES[name] + 1}).hash for name in SIZES} | {vocabulary.hash}) == len(SIZES) + 1
    assert Vocabulary({"a": 5, "b": 5}).hash != Vocabulary({"a": 5, "c": 5}).hash
    assert Vocabulary.from_json(vocabulary.to_json()).hash == vocabulary.hash
    vocabulary.check(vocabulary.hash)
    with pytest.raises(SlmError, match="was expected"):
        vocabulary.check(Vocabulary(SIZES | {"text": 56}).hash)


def test_an_id_outside_its_range_is_an_error_that_says_where(vocabulary):
    with pytest.raises(SlmError, match=r"local id 16 of 'acoustic.0' at position \(1, 0\).* 0 to 15"):
        vocabulary.to_global("acoustic.0", torch.tensor([[0, 15], [16, 3]]))
    with pytest.raises(SlmError, match=r"local id -1 of 'text'"):
        vocabulary.to_global("text", torch.tensor([-1]))
    start, stop = vocabulary.range("text")
    for wrong in (start - 1, stop):
        with pytest.raises(SlmError, match=rf"global id {wrong} of 'text' at position \(1,\).*{start} to {stop - 1}"):
            vocabulary.to_local("text", torch.tensor([start, wrong]))
    with pytest.raises(SlmError, match="whole numbers"):
        vocabulary.to_global("text", torch.tensor([1.0]))
    with pytest.raises(SlmError, match="outside the vocabulary"):
        vocabulary.name_of(vocabulary.size)
    with pytest.raises(SlmError, match="no range 'pitch'"):
        vocabulary.range("pitch")


@pytest.mark.parametrize("sizes", [{"Text": 3}, {"a.01": 3}, {"a.b": 3}, {"eos": 3}, {"a": 0}, {"a": 2.5}, {"a": True}, {"a": 3, "a.0": 3}])
def test_a_range_that_means_nothing_is_refused(sizes):
    with pytest.raises(SlmError):
        Vocabulary(sizes)


def test_growing_keeps_the_rows_that_both_vocabularies_have():
    old, new = Vocabulary({"text": 30, "zeta": 4}), Vocabulary({"text": 33, "acoustic.0": 8, "semantic": 8})
    embedding = nn.Embedding(old.size, 6)
    grown = old.grow(embedding, new)
    assert grown.shape == (new.size, 6) and not grown.requires_grad
    text, now = old.range("text"), new.range("text")
    assert torch.equal(grown[now[0] : now[0] + 30], embedding.weight[text[0] : text[1]])
    for marker in ("pad", "bos", "eos", "text"):
        assert torch.equal(grown[new.marker(marker)], embedding.weight[old.marker(marker)])
    fresh = grown[slice(*new.range("acoustic.0"))]
    assert fresh.std() > 0.1 and not torch.isin(fresh, embedding.weight).any()
    assert torch.equal(grown, old.grow(embedding.weight, new))
    with pytest.raises(SlmError, match="needs"):
        new.grow(embedding, new)


# part


@pytest.mark.parametrize("end", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_merged_can_be_taken_out_again(vocabulary, layout, end):
    parts = [Part("text", learn=False), Part("semantic", end=end), Part("acoustic", levels=(1, 4), layout=layout, end=end)]
    batch = {
        "text": [torch.randint(55, (L,)) for L in (5, 2, 0)],
        "semantic": [torch.randint(100, (1, T)) for T in (4, 7, 1)],
        "acoustic": [torch.randint(16, (8, T)) for T in (3, 9, 1)],
    }
    merged = merge(parts, batch, vocabulary)
    assert merged.ids.shape == merged.learn.shape and merged.ids.shape[1] == merged.lengths.max()
    for row in range(3):
        ids = merged.ids[row]
        taken = {}
        for part, (name, start, stop) in zip(parts, merged.spans[row], strict=True):
            assert name == part.name and ids[start - 1, 0] == vocabulary.marker(name) and (ids[start - 1, 1:] == EMPTY).all()
            Q, T = (8, batch[name][row].shape[-1]) if name == "acoustic" else (1, batch[name][row].shape[-1])
            taken[name] = take(ids[start:stop], part, vocabulary, Q, T)
        assert torch.equal(taken["text"], batch["text"][row])
        assert torch.equal(taken["semantic"], batch["semantic"][row][0])
        assert torch.equal(taken["acoustic"], batch["acoustic"][row][1:4])
        assert (ids[merged.lengths[row] :] == EMPTY).all() and (ids == vocabulary.eos).sum() == 2 * end


def test_only_the_content_of_parts_to_learn_is_learned():
    vocabulary = Vocabulary({"text": 10, "acoustic.0": 4, "acoustic.1": 4})
    parts = [Part("text", learn=False), Part("acoustic", layout="delay", end=True)]
    text, audio, eos = vocabulary.marker("text"), vocabulary.marker("acoustic"), vocabulary.eos
    batch = {"text": [torch.tensor([3]), torch.tensor([4, 5])], "acoustic": [torch.tensor([[0, 1], [2, 3]]), torch.tensor([[1], [2]])]}
    merged = merge(parts, batch, vocabulary)
    w, a, b = vocabulary.range("text")[0], vocabulary.range("acoustic.0")[0], vocabulary.range("acoustic.1")[0]
    assert merged.ids.tolist() == [
        [[text, -1], [w + 3, -1], [audio, -1], [a, -1], [a + 1, b + 2], [eos, b + 3]],
        [[text, -1], [w + 4, -1], [w + 5, -1], [audio, -1], [a + 1, -1], [eos, b + 2]],
    ]
    assert merged.learn.int().tolist() == [
        [[0, 0], [0, 0], [0, 0], [1, 0], [1, 1], [1, 1]],
        [[0, 0], [0, 0], [0, 0], [0, 0], [1, 0], [1, 1]],
    ]
    assert merged.lengths.tolist() == [6, 6] and merged.spans[1] == [("text", 1, 3), ("acoustic", 4, 6)]


@pytest.mark.parametrize("end", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_step_belongs_to_one_part(vocabulary, layout, end):
    parts = [Part("text", end=end), Part("acoustic", levels=(0, 3), layout=layout, end=end)]
    batch = {"text": [torch.randint(55, (L,)) for L in (5, 0)], "acoustic": [torch.randint(16, (8, T)) for T in (3, 9)]}
    merged = merge(parts, batch, vocabulary)
    owned = torch.stack([merged.of(part.name) for part in parts])
    assert torch.equal(owned.sum(0), (torch.arange(merged.ids.shape[1]) < merged.lengths[:, None]).long())
    for part, inside in zip(parts, owned):
        assert (merged.ids[inside] == vocabulary.marker(part.name)).sum() == 2
        assert (merged.ids[inside] == vocabulary.eos).sum() == 2 * end
    assert owned[0].sum(1).tolist() == [6 + end, 1 + end]


def test_a_part_that_cannot_be_told_is_an_error(vocabulary):
    codes = {"acoustic": [torch.zeros(2, 3, dtype=torch.long)]}
    with pytest.raises(SlmError, match="needs levels 0 to 3 but the codes have 2"):
        merge([Part("acoustic", levels=(0, 4))], codes, vocabulary)
    with pytest.raises(SlmError, match="no 'text'"):
        merge([Part("text")], codes, vocabulary)
    with pytest.raises(SlmError, match="same number of rows"):
        merge([Part("text"), Part("acoustic")], codes | {"text": []}, vocabulary)
    with pytest.raises(SlmError, match="layout 'spiral'"):
        Part("acoustic", layout="spiral")
    with pytest.raises(SlmError, match="first < stop"):
        Part("acoustic", levels=(4, 4))
    with pytest.raises(SlmError, match="global id .* of 'text'"):
        take(torch.tensor([[vocabulary.eos]]), Part("text"), vocabulary, 1, 1)


# sample


def allowed(probabilities: list[float], top_k: int, top_p: float) -> dict[int, float]:
    """Reference: add ids from likeliest down until the mass reaches top_p, among the first top_k, then renormalise."""
    order = sorted(range(len(probabilities)), key=lambda i: -probabilities[i])[: top_k or None]
    total = sum(probabilities[i] for i in order)
    kept, mass = {}, 0.0
    for i in order:
        if mass >= top_p:
            break
        kept[i] = probabilities[i] / total
        mass += kept[i]
    return {i: p / mass for i, p in kept.items()}


@pytest.mark.parametrize(
    "temperature,top_k,top_p", [(1, 0, 1), (0.5, 0, 1), (1, 3, 1), (1, 0, 0.6), (1.5, 4, 0.7), (1, 0, 1e-9), (1, 1, 1)]
)
def test_draws_follow_the_reference_distribution(temperature, top_k, top_p):
    torch.manual_seed(0)
    logits = torch.randn(8) * 1.5
    expected = allowed((logits.double() / temperature).softmax(-1).tolist(), top_k, top_p)
    draws = 8_000
    one = torch.Generator().manual_seed(1)
    ids = sample(logits.expand(draws, 8), Sampling(temperature, top_k, top_p), [one] * draws)
    counts = torch.bincount(ids, minlength=8) / draws
    assert {i for i, p in expected.items() if p > 1e-3} <= set(ids.tolist()) <= set(expected)
    for i, p in expected.items():
        assert abs(counts[i] - p) < 4.5 * (p * (1 - p) / draws) ** 0.5 + 1e-9


def test_a_row_is_drawn_alike_alone_and_among_any_batch_mates():
    torch.manual_seed(0)
    logits, history = torch.randn(6, 300) * 3, torch.randint(0, 300, (6, 40))
    legality = torch.rand(6, 300) > 0.3
    sampling = Sampling(0.9, 50, 0.9, repetition=1.3, repetition_window=10)
    together = generators(*range(6))
    batched = torch.stack([sample(logits, sampling, together, legality, history) for _ in range(20)], 1)
    padded = torch.cat([torch.full((6, 3), -1), history, torch.full((6, 5), -1)], 1)
    for row in range(6):
        (own,) = generators(row)
        for draw in range(20):
            args = [x[row : row + 1] for x in (logits, legality, padded)]
            assert sample(args[0], sampling, [own], args[1], args[2]).item() == batched[row, draw]
    assert len(set(batched[0].tolist())) > 1


def test_an_illegal_id_is_never_drawn():
    torch.manual_seed(0)
    legality = torch.zeros(64, dtype=torch.bool)
    legality[[3, 17, 40]] = True
    logits = torch.randn(10_000, 64) * 5
    logits[:, 5] = float("nan")
    one = torch.Generator().manual_seed(0)
    ids = sample(logits, Sampling(2.0, 0, 1.0, repetition=1.5), [one] * 10_000, legality, torch.randint(0, 64, (10_000, 4)))
    assert set(ids.tolist()) == {3, 17, 40}


def test_temperature_zero_takes_the_likeliest_legal_id():
    logits = torch.randn(5, 30)
    assert torch.equal(sample(logits, Sampling(0), []), logits.argmax(-1))
    assert torch.equal(sample(logits, Sampling(1e-300), generators(*range(5))), logits.argmax(-1))
    assert sample(torch.tensor([[1.0, 2.0, 2.0]]), Sampling(0), []).item() == 1
    assert sample(torch.tensor([[1.0, 2.0, 3.0]]), Sampling(0), [], torch.tensor([True, True, False])).item() == 1


def test_repetition_lowers_only_ids_inside_the_window():
    logits, history = torch.tensor([[2.0, 1.9, -0.5]]), torch.tensor([[0, 1, 1, -1]])
    assert sample(logits, Sampling(0, repetition=2), [], history=history[:, :1]).item() == 1
    assert sample(logits, Sampling(0, repetition=2, repetition_window=2), [], history=history).item() == 0
    padded = torch.tensor([[1, 0, -1, -1]])
    assert sample(logits, Sampling(0, repetition=2, repetition_window=1), [], history=padded).item() == 1  # the last real id counts
    assert sample(-logits, Sampling(0, repetition=9), [], history=torch.tensor([[2]])).item() == 2  # 0.5 / 9 beats -1.9 and -2
    assert sample(-logits - 1, Sampling(0, repetition=9), [], history=torch.tensor([[2]])).item() == 1  # -0.5 * 9 loses to -2.9


@pytest.mark.parametrize("temperature, top_k", [(1.0, 0), (0.5, 0), (1.0, 3)])
def test_a_mean_is_the_legal_ids_weighted_with_their_probabilities(temperature, top_k):
    logits, legal = torch.randn(6, 20, generator=torch.Generator().manual_seed(3)) * 2, torch.arange(20) > 4
    said = sample(logits, Sampling(temperature, top_k, 1.0, mean=True), [], legal)
    for row, id in zip(logits, said.tolist()):
        chances = (row.masked_fill(~legal, float("-inf")).double() / temperature).softmax(0)
        if top_k:
            chances[chances < chances.topk(top_k).values[-1]] = 0
        expected = sum(i * float(c) for i, c in enumerate(chances)) / float(chances.sum())
        assert id == round(expected) and legal[id]
    assert (said != logits.masked_fill(~legal, float("-inf")).argmax(-1)).any(), "a mean that is the likeliest id would prove nothing"


def test_an_id_said_too_often_is_drawn_again_from_all_ids():
    """VALL-E 2: top-p leaves one id; with that id in more than the share of the window, the draw follows all probabilities."""
    logits = torch.tensor([3.0, 1.0, 1.0, 0.0])
    often, seldom, padded = torch.tensor([1, 0, 0, 0]), torch.tensor([0, 0, 1, 2]), torch.tensor([0, 0, 0, -1])
    sampling, draws = Sampling(1.0, 0, 0.5, again=0.5, again_window=4), 4000

    def drawn(history, settings):
        return torch.bincount(
            sample(logits.expand(draws, 4), settings, generators(*range(draws)), history=history.expand(draws, -1)), minlength=4
        )

    assert drawn(seldom, sampling).tolist() == [draws, 0, 0, 0], "half of the window is not more than half"
    for history in (often, padded):
        shares, chances = drawn(history, sampling) / draws, logits.softmax(-1)
        assert ((shares - chances).abs() < 4.5 * (chances * (1 - chances) / draws).sqrt()).all()
    longer = Sampling(1.0, 0, 0.5, again=0.5, again_window=6)
    assert drawn(often, longer).tolist() == [draws, 0, 0, 0], "a history shorter than its window counts as if filled with others"
    assert drawn(torch.tensor([0, 0, 0, 0, 1, 2, 3, 1]), sampling).tolist() == [draws, 0, 0, 0], (
        "what lies before the window does not count"
    )


def test_drawing_again_takes_no_other_row_s_number():
    logits, history = torch.randn(5, 9) * 3, torch.randint(0, 9, (5, 6))
    sampling = Sampling(1.0, 0, 0.5, again=0.1, again_window=3)
    together, first = generators(*range(5)), Sampling(1.0, 0, 0.5)
    batched = torch.stack([sample(logits, sampling, together, history=history) for _ in range(20)], 1)
    for row in range(5):
        (own,) = generators(row)
        alone = [sample(logits[row : row + 1], sampling, [own], history=history[row : row + 1]).item() for _ in range(20)]
        assert alone == batched[row].tolist()
    off = sample(logits, first, generators(*range(5)), history=history)
    assert torch.equal(off, sample(logits, first, generators(*range(5)))), "off, the history has no effect"


def test_guidance_is_the_condition_s_effect_times_a_scale():
    heard, without = torch.randn(2, 5), torch.randn(2, 5)
    assert torch.equal(guided(heard, without, 0), without)
    torch.testing.assert_close(guided(heard, without, 1), heard)
    torch.testing.assert_close(guided(heard, without, 3), heard + 2 * (heard - without))


def test_logits_that_allow_no_draw_are_an_error():
    good = torch.zeros(2, 4)
    with pytest.raises(SlmError, match="row 1 of the logits"):
        sample(good, Sampling(), generators(0, 1), torch.tensor([[True] * 4, [False] * 4]))
    with pytest.raises(SlmError, match="row 0 of the logits"):
        sample(torch.tensor([[0.0, float("nan")]]), Sampling(), generators(0))
    with pytest.raises(SlmError, match="1 generators were given for 2 rows"):
        sample(good, Sampling(), generators(0))


@pytest.mark.parametrize(
    "field,value",
    [("temperature", -1), ("temperature", float("nan")), ("top_k", -1), ("top_k", 1.5), ("top_p", 0), ("top_p", 1.1)]
    + [("repetition", 0), ("repetition_window", -1), ("again", 1.5), ("again_window", 0)],
)
def test_a_setting_out_of_range_is_an_error_that_names_it(field, value):
    with pytest.raises(SlmError, match=f"sampling.{field} is"):
        Sampling(**{field: value})


def test_loops_are_found_and_speech_is_not():
    torch.manual_seed(0)
    speech = torch.randint(0, 500, (200,)).tolist()
    assert not looping(speech) and not looping([]) and not looping(speech + [7] * 49) and looping(speech + [7] * 50)
    for n in range(2, 9):
        gram = list(range(n))
        assert looping(speech + gram * 6) and not looping(speech + gram * 5) and not looping(speech + gram * 6 + [499])
    assert not looping(speech + list(range(9)) * 6)
    assert not looping(speech + [7] * 30, ngram=4), "a held vowel is no loop of bigrams"
    steps = torch.tensor([[1, 2], [1, 3]] * 6)
    assert looping(steps) and not looping(steps[:10])
