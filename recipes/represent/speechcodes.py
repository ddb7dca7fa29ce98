"""Speech codes of BASE TTS (Łajszczak et al., 2024): what is said in 400 bit/s, and who says it as one vector.

    slm train recipes/represent/hubert.py --stage first --out runs/hubert      # and its second round: the encoder
    slm train recipes/represent/speechcodes.py --out runs/speechcodes

Leaves runs/speechcodes/codes, a tokenizer with 256 codes at 50 Hz. `slm_tokenizers.semantic.unit_bpe.learn` merges them; the
paper has 8192 ids, about 40 % fewer of them. Expect a voice that is the same in both halves of a crop, and codes from which
speakers are told worse than with stages.codes.reversal=0. Another encoder: --set stages.codes.codes.source=FOLDER.
"""

from slm.data.madeup import MadeUpSounds
from slm.data.sounds import Sounds
from slm.recipe import Recipe, main
from slm.train.loop import Train
from slm_tokenizers.semantic.encoder import SpeechEncoder
from slm_tokenizers.semantic.speechcodes import SpeechCodes
from slm_tokenizers.semantic.speechcoding import LearningSpeechCodes


def recipe(encoder: str = "runs/hubert/second") -> Recipe:
    return Recipe(
        stages={"codes": LearningSpeechCodes.Config(SpeechCodes.Config(encoder, layer=3))},
        data={"codes": Sounds(seconds=2.0)},
        train={"codes": Train(steps=10_000, lr=3e-4, warmup=200)},
    )


def small() -> Recipe:
    encoder = SpeechEncoder.Config(widths=(16,) * 7, dim=16, depth=2, heads=2, hidden=32, positions=9, groups=2)
    return Recipe(
        stages={"codes": LearningSpeechCodes.Config(SpeechCodes.Config(encoder, 1, card=8, dim=8, width=16, voice=6), bands=10, width=16)},
        data={"codes": MadeUpSounds()},
        train={"codes": Train(steps=3, warmup=1, every=2)},
    )


if __name__ == "__main__":
    main(__file__)
