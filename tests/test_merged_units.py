"""Merged units come apart exactly, are stored with the units they were found on, and refuse any others."""

import numpy as np
import pytest
import torch

import slm_tokenizers
from slm.codes import fingerprint
from slm.data.madeup import MadeUpSounds
from slm.errors import SlmError
from slm.stage.lm import LM, Stream
from slm.stream.part import Part
from slm.study.basetts import figures, seconds
from slm.train.loop import Train
from slm_tokenizers.codec import tiny
from slm_tokenizers.semantic.merged_units import MergedUnits
from slm_tokenizers.semantic.mfcc import Mfcc
from slm_tokenizers.semantic.units import Units


@pytest.fixture(scope="module")
def merged() -> MergedUnits:
    torch.manual_seed(0)
    made = MergedUnits.Config(tiny(1), card=24).build()
    made.fit(MadeUpSounds(seconds=1.0).build({}), Train(steps=4))
    return made.eval()


def beside(merged: MergedUnits, merges: list) -> MergedUnits:
    """Other merges over the same units."""
    made = MergedUnits.Config(merged.source.config, card=24, merges=merges).build()
    made.source.load_state_dict(merged.source.state_dict())
    return made


def sounds(rows: int = 3) -> list[torch.Tensor]:
    return [MadeUpSounds(seconds=0.5 + 0.2 * i, seed=50 + i).build({}).at(0)["audio"][0] for i in range(rows)]


def test_merged_units_come_apart_to_the_units_exactly_and_are_fewer(merged):
    for sound in sounds():
        units, ids = merged.source.encode(sound[None])[0, 0], merged.encode(sound[None])[0, 0]
        assert torch.equal(merged.part(ids), units) and len(ids) < len(units)
        assert int(ids.max()) < merged.card <= 24


def test_rows_of_other_lengths_do_not_change_a_row():
    torch.manual_seed(0)
    units = Units.Config(Mfcc.Config(), card=3).build()
    units.centroids = torch.randn_like(units.centroids)
    units.config.origin = units.origin()
    merged = MergedUnits.Config(units.config, card=9, merges=[(0, 0), (1, 1), (2, 2), (3, 3), (4, 4)]).build()
    merged.source.centroids = units.centroids
    rows = sounds()
    together = merged.encode(rows)
    lengths = []
    for i, sound in enumerate(rows):
        alone = merged.encode(sound[None])[0, 0]
        assert torch.equal(together[i, 0, : len(alone)], alone) and (together[i, 0, len(alone) :] == -1).all()
        lengths.append(len(alone))
    assert together.shape[-1] == max(lengths) > min(lengths)


def test_fitting_tells_the_length_that_is_left(merged):
    again = beside(merged, [])
    data = MadeUpSounds(seconds=1.0).build({})
    (told,) = again.fit(data, Train(steps=4))
    rows = [again.source.encode(data.at(step)["audio"])[b, 0] for step in range(4) for b in range(4)]
    assert told["length"] == pytest.approx(sum(len(again.merge(row)) for row in rows) / sum(map(len, rows))) and told["length"] < 0.9
    assert again.config.merges == merged.config.merges, "the same rows, the same merges"
    given = type("Data", (), {"at": lambda self, step: {"units": rows[4 * step : 4 * step + 4]}})()
    again.fit(given, Train(steps=4))
    assert again.config.merges == merged.config.merges, "units or the audio of them"


def test_merges_come_back_from_disk_with_their_units_and_have_a_fingerprint_of_their_own(merged, tmp_path):
    merged.write(tmp_path / "merged")
    again = slm_tokenizers.load(tmp_path / "merged")
    assert again.config.merges == merged.config.merges and fingerprint(again) == fingerprint(merged)
    for sound in sounds():
        assert torch.equal(again.encode(sound[None]), merged.encode(sound[None]))
    other = beside(merged, [*merged.config.merges[:-1], (0, 0)])
    assert fingerprint(other) != fingerprint(merged), "codes of other merges must never be taken from the cache"


def test_other_units_are_refused(merged):
    source, merged.source = merged.source, tiny(1).build().eval()
    with pytest.raises(SlmError, match="were found on units of"):
        merged.encode(sounds()[0][None])
    merged.source = source
    merged.encode(sounds()[0][None])


def test_what_cannot_be_merged_is_refused(merged):
    with pytest.raises(SlmError, match="no merges yet"):
        MergedUnits.Config(tiny(1), card=20).build().encode(sounds()[0][None])
    with pytest.raises(SlmError, match="card is 5 but there are 16"):
        MergedUnits.Config(tiny(1), card=5).build()
    with pytest.raises(SlmError, match="Codec has 3"):
        MergedUnits.Config(tiny(3), card=20).build()
    with pytest.raises(SlmError, match="must be the config or the folder"):
        MergedUnits.Config(None).build()


class Even(torch.nn.Module):
    """Every id costs one nat more than the units it stands for."""

    def __init__(self, cost: float) -> None:
        super().__init__()
        self.cost = cost

    def loss(self, batch: dict) -> dict[str, torch.Tensor]:
        return {"units": torch.tensor(self.cost + float(batch["text"][0][0]))}


def test_bits_a_second_are_over_time_and_not_over_ids(merged):
    sound = sounds()[0]
    ids = merged.encode(sound[None])[0, 0]
    rows = [{"units": ids, "text": torch.tensor([0])}, {"units": ids[:3], "text": torch.tensor([2])}]
    config = type("Rows", (), {"config": type("Config", (), {"codes": "units"})()})()
    lengths = seconds(config, {"units": merged}, rows)
    assert lengths.tolist() == pytest.approx([len(merged.part(row["units"])) * merged.hop / merged.rate for row in rows])
    found = {name: figure.value for name, figure in figures(Even(np.log(2)), rows, lengths).items()}
    n, m = len(ids) + 1, 4
    assert found["ids a second"] == pytest.approx((n + m - 2) / lengths.sum())
    assert found["bits a second"] == pytest.approx((n + m * (1 + 2 / np.log(2))) / lengths.sum(), rel=1e-5)
    assert found["bits a second, another's text"] == pytest.approx((n * (1 + 2 / np.log(2)) + m) / lengths.sum(), rel=1e-5)


def test_a_language_model_over_merged_units_has_all_its_ids(merged):
    lm = LM.Config([Part("text", learn=False), Part("units", end=True)]).build(
        {"text": Stream(4), "units": Stream(merged.card, merged.n_q)}
    )
    begin, end = lm.vocabulary.range("units")
    assert end - begin == merged.card == 16 + len(merged.config.merges)
