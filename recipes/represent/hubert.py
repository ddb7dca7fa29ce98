"""HuBERT (Hsu et al., 2021) in two rounds, at a size that one machine can train: which unit is hidden here?

    slm train recipes/represent/hubert.py --stage first --out runs/hubert      # units: clusters of MFCC
    slm train recipes/represent/hubert.py --stage second --out runs/hubert     # units: clusters of a middle layer of `first`
    slm train recipes/represent/hubert.py --stage units --out runs/hubert      # clusters of a middle layer of `second`

Leaves runs/hubert/units, a tokenizer. Half of the first round's loss is on frames that are heard (the paper's alpha): with hidden ones
alone the convolutions have hardly begun to learn after thousands of small batches. The second round goes on from the first's weights,
for which BASE has no need, with hidden frames alone and more and shorter gaps. BASE has alpha = 1 and is `SpeechEncoder.Config()` with
100 units, then 500 of layer 6, crops of 15 s, 250,000 and 400,000 steps at 5e-4. Expect units that tell phones better than MFCC's do.
"""

from slm.data.madeup import MadeUpSounds
from slm.data.sounds import Sounds
from slm.recipe import Recipe, main
from slm.train.loop import Train
from slm_tokenizers.semantic.encoder import SpeechEncoder
from slm_tokenizers.semantic.labelled import Labelled
from slm_tokenizers.semantic.masked_units import MaskedUnits
from slm_tokenizers.semantic.masking import Masking
from slm_tokenizers.semantic.mfcc import Mfcc
from slm_tokenizers.semantic.units import Units


def recipe(out: str = "runs/hubert") -> Recipe:
    widths = (64, 64, 128, 128, 192, 192, 192)
    encoder = SpeechEncoder.Config(widths=widths, dim=192, depth=4, heads=4, hidden=768, positions=64, dropout=0.0, layerdrop=0.0)
    sounds = Sounds(seconds=2.0, batch=8)
    mfcc, middle = Units.Config(Mfcc.Config(), card=50), Units.Config(f"{out}/first", layer=2, card=100)
    return Recipe(
        stages={
            "first": MaskedUnits.Config(encoder, card=50, alpha=0.5),
            "second": MaskedUnits.Config(f"{out}/first", card=100, masking=Masking(start=0.1, span=5)),
            "units": Units.Config(f"{out}/second", layer=2, card=100),
        },
        data={"first": Labelled(sounds, mfcc), "second": Labelled(sounds, middle), "units": sounds},
        train={
            "first": Train(steps=8_000, lr=8e-4, warmup=200, ema=0.0),
            "second": Train(steps=12_000, lr=8e-4, warmup=200, ema=0.0),
            "units": Train(steps=500),
        },
    )


def small() -> Recipe:
    encoder = SpeechEncoder.Config(widths=(16,) * 7, dim=16, depth=2, heads=2, hidden=32, positions=9, groups=2)
    mfcc, middle = Units.Config(Mfcc.Config(), card=6), Units.Config(encoder, layer=1, card=8)
    masking = Masking(start=0.08, span=3)
    return Recipe(
        stages={
            "first": MaskedUnits.Config(encoder, card=6, dim=8, masking=masking),
            "second": MaskedUnits.Config(encoder, card=8, dim=8, masking=masking),
            "units": Units.Config(encoder, layer=1, card=8),
        },
        data={
            "first": Labelled(MadeUpSounds(), mfcc, batches=3),
            "second": Labelled(MadeUpSounds(), middle, batches=3),
            "units": MadeUpSounds(),
        },
        train={"first": Train(steps=3, warmup=1, every=2), "second": Train(steps=3, warmup=1, every=2), "units": Train(steps=3)},
    )


if __name__ == "__main__":
    main(__file__)
