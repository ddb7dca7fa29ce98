"""wav2vec 2.0 (Baevski et al., 2020) at a size that one machine can train: which quantised frame is hidden here?

    slm train recipes/represent/wav2vec2.py --out runs/wav2vec2

Leaves runs/wav2vec2/encoder, whose layers slm_tokenizers.semantic.units turns into units. BASE is `SpeechEncoder.Config()`
with crops of 15 s, 400,000 steps at 5e-4, a rise over the first 8 %.
"""

from slm.data.madeup import MadeUpSounds
from slm.data.sounds import Sounds
from slm.recipe import Recipe, main
from slm.train.loop import Train
from slm_tokenizers.semantic.contrastive import Contrastive
from slm_tokenizers.semantic.encoder import SpeechEncoder
from slm_tokenizers.semantic.gumbel import GumbelQuantizer
from slm_tokenizers.semantic.masking import Masking


def recipe() -> Recipe:
    encoder = SpeechEncoder.Config(widths=(128,) * 7, dim=192, depth=4, heads=4, hidden=768, positions=64, dropout=0.0, layerdrop=0.0)
    return Recipe(
        stages={"encoder": Contrastive.Config(encoder, GumbelQuantizer.Config(card=64, decay=0.9995), negatives=50)},
        data={"encoder": Sounds(seconds=2.0, batch=8)},
        train={"encoder": Train(steps=10_000, lr=5e-4, warmup=800, ema=0.0)},
    )


def small() -> Recipe:
    encoder = SpeechEncoder.Config(widths=(16,) * 7, dim=16, depth=2, heads=2, hidden=32, positions=9, groups=2)
    quantizer = GumbelQuantizer.Config(card=8, dim=8)
    return Recipe(
        stages={"encoder": Contrastive.Config(encoder, quantizer, Masking(span=3, least=2), dim=8, negatives=5)},
        data={"encoder": MadeUpSounds()},
        train={"encoder": Train(steps=3, warmup=1, every=2)},
    )


if __name__ == "__main__":
    main(__file__)
