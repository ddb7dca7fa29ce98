"""HAM-TTS: a latent sequence hears its own phones, is told where it was predicted, and slips are heard but never to be said."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from slm import model, recipe
from slm.backbone.transformer import Transformer
from slm.condition.latent import Latent, shuffled
from slm.data.aligned import Aligned
from slm.data.augmented import Augmented, heard, repeated, replaced
from slm.data.beside import Beside, even
from slm.data.continued import Continued
from slm.data.madeup import MadeUpUtterances
from slm.data.prosody import MadeUpMelody
from slm.errors import SlmError
from slm.speak import load
from slm.stage.lm import LM, Stream
from slm.stream.part import merge
from slm.stream.sample import Sampling
from slm.study.run import train
from slm.train.run import streams, tokenizers, train_recipe
from slm_tokenizers.codec import tiny
from slm_tokenizers.text.phonemes import Phonemes

ROOT = Path(__file__).parent.parent
HAMTTS, VALLE = (recipe.load(ROOT / f"recipes/zero_shot/{name}.py") for name in ("hamtts", "valle"))
STUDY = recipe.load(ROOT / "recipes/study/hamtts.py", ("study", "small"))
STREAMS = {"text": Stream(9), "units": Stream(6), "acoustic": Stream(12, 3)}


def stage(latent: Latent.Config | None = None, **more) -> LM:
    torch.manual_seed(0)
    config = LM.Config(
        list(VALLE.PARTS), Transformer.Config(24, 2, 2), sampling={"acoustic": Sampling(temperature=0)}, cap=5.0, latent=latent, **more
    )
    lm = config.build(STREAMS).eval()
    with torch.no_grad():
        for name, weight in lm.named_parameters():
            if weight.ndim == 2 and name.startswith("backbone"):
                weight.normal_(0, 0.2)  # so that what a step sees matters
    return lm


def batch(*phones: int) -> dict:
    draw = torch.Generator().manual_seed(3)
    duration = [torch.randint(1, 4, (n,), generator=draw) for n in phones]
    return {
        "text": [torch.randint(0, 9, (n,), generator=draw) for n in phones],
        "duration": duration,
        "units": [torch.randint(0, 6, (int(d.sum()),), generator=draw) for d in duration],
        "acoustic": [torch.randint(0, 12, (3, int(d.sum())), generator=draw) for d in duration],
    }


def alone(rows: dict, b: int) -> dict:
    return {name: [content[b]] for name, content in rows.items()}


def latent(**more) -> Latent:
    torch.manual_seed(1)
    return Latent.Config(dim=16, **more).build(9, 6, 24).eval()


@pytest.mark.parametrize("reach", [0, 1])
def test_a_phone_hears_the_units_in_its_reach_and_no_others(reach):
    aligner, rows = latent(reach=reach).aligner, batch(7)
    heard_in = [rows[name] for name in ("text", "units", "duration")]
    before, known = aligner(*heard_in)
    assert known.all()
    whose = torch.arange(7).repeat_interleave(rows["duration"][0])
    for t, own in enumerate(whose.tolist()):
        units = rows["units"][0].clone()
        units[t] = (units[t] + 1) % 6
        after, _ = aligner(heard_in[0], [units], heard_in[2])
        changed = (after - before)[0].abs().amax(-1) > 0
        assert changed.tolist() == [abs(i - own) <= reach for i in range(7)], t


def test_a_sequence_and_its_losses_do_not_depend_on_batch_mates():
    part, rows = latent(), batch(3, 11, 6)
    rows = part.told(rows)
    each = [part.told({name: content for name, content in alone(rows, b).items() if name != "lvs"}) for b in range(3)]
    for b, one in enumerate(each):
        torch.testing.assert_close(one["lvs"][0], rows["lvs"][b], atol=1e-6, rtol=1e-5)
    together, sizes = part.losses(rows), (3, 11, 6)
    for name in ("lvs", "phone"):
        mean = sum(float(part.losses(one)[name].detach()) * n for one, n in zip(each, sizes)) / sum(sizes)
        assert float(together[name].detach()) == pytest.approx(mean, abs=1e-5)


def test_a_phone_without_frames_teaches_nothing():
    part, rows = latent(reach=0), batch(5)
    rows["duration"][0][2] = 0
    rows["units"] = [rows["units"][0][: int(rows["duration"][0].sum())]]
    _, known = part.aligner(rows["text"], rows["units"], rows["duration"])
    assert known[0].tolist() == [True, True, False, True, True]
    rows = part.told(rows)
    before = part.losses(rows)
    rows["lvs"] = [rows["lvs"][0].index_fill(0, torch.tensor(2), 100.0)]
    assert torch.equal(part.losses(rows)["lvs"], before["lvs"]) and all(v.isfinite() for v in before.values())


def test_the_aligner_learns_from_naming_and_the_predictor_from_the_aligner():
    part = latent()
    losses = part.losses(part.told(batch(4, 9)))
    for name, moved in (("lvs", False), ("phone", True)):
        part.zero_grad()
        losses[name].backward(retain_graph=True)
        aligner = [p.grad is not None and bool(p.grad.abs().sum() > 0) for p in part.aligner.parameters()]
        others = [p.grad is not None and bool(p.grad.abs().sum() > 0) for n, p in part.named_parameters() if not n.startswith("aligner")]
        assert all(aligner) if moved else not any(aligner), name
        assert any(others) is not moved, name


def test_what_is_predicted_comes_nearer_to_what_is_heard_unless_it_is_predicted_from_other_phones():
    """Units that are decided by their phone: the predictor must find them, the control cannot."""
    left = {}
    for control in (False, True):
        part = latent(shuffled=control).train()
        optimiser, draw = torch.optim.AdamW(part.parameters(), lr=1e-2), torch.Generator().manual_seed(0)
        for _ in range(80):
            text = [torch.randint(0, 9, (int(n),), generator=draw) for n in torch.randint(6, 20, (8,), generator=draw)]
            duration = [torch.randint(1, 4, (len(row),), generator=draw) for row in text]
            units = [(row * 2 % 6).repeat_interleave(d) for row, d in zip(text, duration)]
            losses = part.losses(part.told({"text": text, "duration": duration, "units": units}))
            optimiser.zero_grad()
            sum(losses.values()).backward()
            optimiser.step()
        left[control] = float(losses["lvs"].detach())
    assert left[False] < 0.5 * left[True], left


def test_a_sequence_that_says_nothing_leaves_the_model_as_it_is():
    rows, plain, lm = batch(4, 7, 2), stage(), stage(Latent.Config(dim=16))
    assert set(lm.state_dict()) - set(plain.state_dict()) == {f"latent.{name}" for name in lm.latent.state_dict()}
    assert LM.Config().latent is None
    lm.load_state_dict(plain.state_dict(), strict=False)
    with torch.no_grad():
        assert not torch.equal(lm.loss(rows)["acoustic"], plain.loss(rows)["acoustic"])
        lm.latent.join.weight.zero_(), lm.latent.join.bias.zero_()
        assert torch.equal(lm.loss(rows)["acoustic"], plain.loss(rows)["acoustic"])
    assert set(plain.loss(rows)) == {"acoustic"} and set(lm.loss(rows)) == {"acoustic", "lvs", "phone"}


def test_the_sequence_is_told_at_its_phones_and_nowhere_else():
    lm, rows = stage(Latent.Config(dim=16)), batch(4, 7)
    merged = merge(lm.parts, rows, lm.vocabulary)
    hints = lm.hints(rows, merged, None)
    for b, n in enumerate((4, 7)):
        assert (hints[b].abs().sum(-1) > 0).nonzero()[:, 0].tolist() == list(range(1, 1 + n))
        only = alone(rows, b)
        torch.testing.assert_close(lm.hints(only, merge(lm.parts, only, lm.vocabulary), None)[0, : n + 1], hints[b, : n + 1])


def test_what_is_said_step_by_step_is_likeliest_at_once_and_alone():
    lm = stage(Latent.Config(dim=16))
    with torch.no_grad():
        lm.head.bias[lm.vocabulary.eos] = 0.1
    rows = batch(5, 3)
    given = {"text": rows["text"], "acoustic_begins": [codes[:1, :2] for codes in rows["acoustic"]]}
    said = lm.run(given, [0, 1])
    merged = merge(lm.parts, said, lm.vocabulary)
    legal = lm.legal(lm.parts[1], 0)
    with torch.no_grad():
        hidden, _ = lm.backbone(lm.inputs(merged.ids, lm.hints(said, merged, None)), lengths=merged.lengths)
        for b, codes in enumerate(said["acoustic"]):
            start = merged.spans[b][1][1]
            likeliest = legal[lm.score(hidden[b, start - 1 : start + codes.shape[1]], legal).argmax(-1)]
            assert codes.shape[1] > 4
            assert torch.equal(likeliest[2:-1], merged.ids[b, start + 2 : start + codes.shape[1], 0])
            only = lm.run(alone(given, b), [b])
            assert torch.equal(only["acoustic"][0], codes)
    with torch.no_grad():
        lm.latent.join.weight.zero_()
    assert any(not torch.equal(a, b) for a, b in zip(lm.run(given, [0, 1])["acoustic"], said["acoustic"])), "it is heard while speaking"


def test_a_sequence_that_is_given_is_told_instead_of_the_predicted_one():
    lm, rows = stage(Latent.Config(dim=16)), batch(6, 4)
    nats = lm.loss(rows)["acoustic"]
    own = lm.latent.predict(rows["text"])
    assert torch.equal(lm.loss(rows | {"lvs": own})["acoustic"], nats)
    other = lm.latent.predict([shuffled(row) for row in rows["text"]])
    assert not torch.equal(lm.loss(rows | {"lvs": other})["acoustic"], nats)


def test_while_training_a_sequence_must_have_what_it_learns_from():
    lm, rows = stage(Latent.Config(dim=16)), batch(4)
    del rows["units"]
    assert set(lm.loss(rows)) == {"acoustic"}
    with pytest.raises(SlmError, match="learned from 'units', which the batch lacks"):
        lm.train().loss(rows)
    with pytest.raises(SlmError, match="its phones last"):
        lm.loss(batch(4) | {"units": [torch.zeros(3, dtype=torch.long)]})
    with pytest.raises(SlmError, match="one is missing"):
        stage(Latent.Config(units="hubert"))
    with pytest.raises(SlmError, match="kernel = 4 must be odd"):
        latent(kernel=4)


class Rows:
    """Data of eight rows with codes that tell their row and frame."""

    def build(self, tokenizers):
        return self

    def __len__(self):
        return 1

    def at(self, step, rank=0, world=1):
        return {"acoustic": [torch.arange(n) + 1000 * i + torch.tensor([[0], [500]]) for i, n in enumerate(range(30, 110, 10))]}


def test_slips_are_heard_and_never_to_be_said():
    rows, data = Rows().at(0)["acoustic"], Augmented(Rows(), share=0.3, frames=(5, 12)).build({})
    slips = []
    for step in range(100):
        found = data.at(step)
        assert all(torch.equal(a, b) for a, b in zip(found["acoustic"], rows)), "what is to be said"
        for i, (said, own) in enumerate(zip(found["acoustic_heard"], rows)):
            assert said.shape == own.shape
            where = (said != own).any(0).nonzero()[:, 0]
            if not len(where):
                continue
            a, n = int(where[0]), len(where)
            assert 5 <= n <= 12 and where.tolist() == list(range(a, a + n)), "one segment"
            piece = said[:, a : a + n]
            source, begin = int(piece[0, 0]) // 1000, int(piece[0, 0]) % 1000
            assert torch.equal(piece, rows[source][:, begin : begin + n]), "of all levels of one recording"
            assert source != i or begin == a - n, "or what was heard just before"
            slips.append(source == i)
    assert 0.25 < len(slips) / 800 < 0.35 and 0.35 < sum(slips) / len(slips) < 0.65
    again = Augmented(Rows(), share=0.3, frames=(5, 12)).build({}).at(7)["acoustic_heard"]
    assert all(torch.equal(a, b) for a, b in zip(data.at(7)["acoustic_heard"], again)), "a function of (seed, step)"


def test_short_rows_and_lone_ones_can_slip_too():
    draw, short = np.random.default_rng(0), torch.arange(3)[None]
    assert replaced(short, torch.arange(50)[None] + 9, (10, 50), draw).shape == short.shape
    assert repeated(torch.arange(4)[None], (10, 50), draw).tolist() == [[0, 1, 0, 1]]
    assert torch.equal(repeated(short[:, :1], (10, 50), draw), short[:, :1])
    assert heard([torch.arange(8)[None]], 1.0, (4, 4), draw)[0].tolist() == [[0, 1, 2, 3] * 2]
    with pytest.raises(SlmError, match="share = 2"):
        Augmented(Rows(), share=2).build({})


def test_targets_are_the_clean_codes_whatever_is_heard():
    """Scores that depend on nothing that was heard: then the loss is of the ids to be said, and of no others."""
    lm, rows = stage(), batch(6, 4)
    slip = rows | {"acoustic_heard": [(codes * 5 + 1) % 7 for codes in rows["acoustic"]]}
    assert torch.equal(lm.loss(rows | {"acoustic_heard": rows["acoustic"]})["acoustic"], lm.loss(rows)["acoustic"])
    assert not torch.equal(lm.loss(slip)["acoustic"], lm.loss(rows)["acoustic"])
    with torch.no_grad():
        lm.head.weight.zero_(), lm.head.bias.normal_()
    legal = lm.legal(lm.parts[1], 0)
    scores = lm.head.bias[legal].log_softmax(0)
    ids = torch.cat([F.pad(codes[0], (0, 1), value=12) for codes in rows["acoustic"]])  # 12: <eos>, the last of the legal ones
    for given in (rows, slip):
        torch.testing.assert_close(lm.loss(given)["acoustic"], -scores[ids].mean())
    with pytest.raises(SlmError, match="must be as long"):
        lm.loss(rows | {"acoustic_heard": [codes[:, 1:] for codes in rows["acoustic"]]})


def test_a_slip_changes_nothing_before_it():
    """What is heard differs at the slip alone, so that a causal model says the same up to it."""
    lm, rows = stage(), batch(9)
    codes = rows["acoustic"][0]
    for at in (0, 3, 8):
        other = codes.clone()
        other[:, at] = (codes[:, at] + 1) % 12
        merged = merge(lm.parts, rows, lm.vocabulary)
        ids = lm.as_heard(merged, {**rows, "acoustic_heard": [other]}).ids
        start = merged.spans[0][1][1]
        assert (ids != merged.ids).any(-1)[0].nonzero()[:, 0].tolist() == [start + at]


def test_units_stand_beside_their_frames():
    """With the codec's own first level in the place of units, they are the codes, whatever was cut and joined."""
    known = tokenizers(VALLE.small())
    known["units"] = known["acoustic"]
    for joined in (True, False):
        spoken = Continued(MadeUpUtterances(), (8, 16), 60, joined=joined)
        plain, beside = spoken.build(known), Beside(spoken).build(known)
        for step in range(3):
            one, other = plain.at(step), beside.at(step)
            assert set(other) == set(one) | {"units"}
            for name in one:
                assert all(torch.equal(a, b) for a, b in zip(one[name], other[name])), name
            assert all(torch.equal(units, codes[0]) for units, codes in zip(other["units"], other["acoustic"]))
            if joined:
                assert all(len(units) == int(d.sum()) for units, d in zip(other["units"], other["duration"]))


def test_units_of_recordings_are_those_of_their_frames(tmp_path):
    """Again the codec's own codes, of a recording with a pause that is shortened and an alignment one frame short."""
    import soundfile

    from slm.data.prepare import prepare

    draw = np.random.default_rng(0)
    (tmp_path / "corpus").mkdir()
    soundfile.write(tmp_path / "corpus/a.wav", 0.1 * draw.standard_normal(16000 * 3), 16000)
    (tmp_path / "corpus/a.txt").write_text("Ah.")
    prepare(tmp_path / "corpus", tmp_path / "ready")
    cut = json.loads(gzip.decompress((tmp_path / "ready/cuts.jsonl.gz").read_bytes()))["id"]
    phones = [["AA1", 24], ["sil", 100], ["AA1", 25]]
    (tmp_path / "ready/phones.jsonl").write_text(json.dumps({"id": cut, "phones": phones}) + "\n")
    known = {"text": Phonemes(), "acoustic": tiny().build().eval()}
    known["units"] = known["acoustic"]
    of = Aligned((str(tmp_path / "ready"),), cache=str(tmp_path / "cache"))
    (item,) = Beside(Continued(of)).build(known).batches.items
    assert item.duration.tolist() == [24, 60, 26] and item.codes.shape == (4, 110)
    assert torch.equal(item.codes[3], item.codes[0])


def test_units_of_other_frames_are_refused():
    assert even(torch.tensor([3, 4]), 4).tolist() == [3, 4, 4, 4] and even(torch.tensor([3, 4, 5]), 2).tolist() == [3, 4]
    with pytest.raises(SlmError, match="20 frames has 10 units"):
        even(torch.zeros(10), 20)
    known = tokenizers(VALLE.small())
    known["units"] = tiny(1).build()
    known["units"].hop = 640
    with pytest.raises(SlmError, match="come 25 and 50 a second"):
        Beside(Continued(MadeUpUtterances())).build(known)


def test_the_small_system_trains_saves_loads_and_speaks(tmp_path, tone_voice):
    for name in ("ar", "nar"):
        losses = train_recipe(ROOT / "recipes/zero_shot/hamtts.py", name, tmp_path, small=True, quiet=True)
        assert len(losses) == 3 and ({"lvs", "phone"} <= set(losses[0])) is (name == "ar")
    loaded = model.load(tmp_path)
    assert loaded.stages["ar"].latent is not None and "units" in loaded.tokenizers
    first, again = (load(tmp_path).speak("Hello there.", voice=tone_voice, voice_text="what is said", seed=1) for _ in range(2))
    assert first.seconds > 0.02 and first.audio.isfinite().all()
    assert torch.equal(first.audio, again.audio), "a saved and loaded model must say the same samples"


def test_variants_of_the_study_have_as_many_weights_that_speak():
    counted = {}
    for name in STUDY.VARIANTS:
        r = STUDY.variant(name, 0, Path("nowhere"))
        r.tokenizers.pop("units", None)
        lm = r.stages["ar"].build(streams(tokenizers(r)) | {"units": Stream(100)})
        counted[name] = sum(p.numel() for n, p in lm.named_parameters() if not n.startswith("latent.aligner"))
    fewest, most = min(counted.values()), max(counted.values())
    assert most < 1.01 * fewest, counted


def test_all_that_the_study_claims_is_measured(tmp_path, judges):
    class Known:
        def __init__(self, id: str) -> None:
            self.id = id

    voices = replace(VALLE.small().data["ar"], melody=MadeUpMelody())
    study, found = STUDY.small(), {}
    for name, build in study.variants.items():
        train(build(0, tmp_path / name), tmp_path / name, quiet=True)
        found[name] = study.measure.func(tmp_path / name, [Known("0"), Known("5")], 0, voices, ("One.", "Two."))
    for claim in study.claims:
        for variant, figure in (claim.one, claim.other):
            assert np.isfinite(found[variant][figure].value), (variant, figure)
    plain = found["LVS"]
    assert len(plain["nats"].parts) == 12 and plain["nats, after slips"].value != plain["nats"].value
    assert plain["nats, another LVS"].value != plain["nats"].value
    slips = [isinstance(build(0, tmp_path).data["ar"], Augmented) for build in study.variants.values()]
    assert slips == [False, False, False, True]
