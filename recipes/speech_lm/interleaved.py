"""Text to speech that begins before its text is complete: five phones, fifteen frames, five phones, and so on, in one stream.

    slm align data/train && slm train recipes/speech_lm/interleaved.py --out runs/interleaved
    slm study recipes/study/interleaved.py                # what does it cost not to know the whole text?

CosyVoice 2 (Du et al., 2024) tells 5 : 15 tokens of text and of speech in turns, GLM-4-Voice (Zeng et al., 2024) 13 : 26. The frames are
the bundled codec's first level, which sounds by itself; a phone takes about five of them, so that speech stays behind its text. Python:

    feeding = slm.model.load(Path("runs/interleaved")).stages["lm"].speak(seed=0, prompt=latents)
    for phones in text_as_it_comes: codes += feeding.feed(phones)
    codes += feeding.end()                                # and feeding.stop says why it ended

By alignment instead of by number: --set "stages.lm.spans.frames=None"; a word at a time: recipes/speech_lm/spiritlm.py. With Mamba-2, which
needs no places: --set "stages.lm.backbone=Mamba2.Config(dim=256, depth=9)" --set "stages.lm.places={}"
"""

from slm.backbone.transformer import Transformer
from slm.condition.voice import Voice
from slm.data.aligned import Aligned
from slm.data.madeup import MadeUpUtterances
from slm.data.splits import HELD_OUT
from slm.recipe import Recipe, main
from slm.stage.interleaved import Interleaved
from slm.stream.spans import Spans
from slm.train.loop import Train
from slm_tokenizers.codec import tiny
from slm_tokenizers.text.phonemes import Phonemes


def recipe(dim: int = 256, depth: int = 6, heads: int = 4, codec: str = "default") -> Recipe:
    return Recipe(
        tokenizers={"text": Phonemes.Config(), "acoustic": codec},
        stages={
            "lm": Interleaved.Config(
                Spans(5, 15),
                backbone=Transformer.Config(dim, depth, heads),
                voice=Voice.Config(dim=dim),
                places={"text": 1.0, "acoustic": 0.2},  # about five frames last as long as a phone
            )
        },
        data={"lm": Aligned(held_out=HELD_OUT)},
        train={"lm": Train(steps=2200, lr=1.5e-3, ema=0.998)},
    )


def small() -> Recipe:
    r = recipe(dim=32, depth=1, heads=2)
    r.tokenizers["acoustic"] = tiny()
    r.stages["lm"].voice = Voice.Config(latent=8, width=16, dim=32)
    r.data = {"lm": MadeUpUtterances()}
    r.train = {"lm": Train(steps=3, warmup=1, every=2)}
    return r


if __name__ == "__main__":
    main(__file__)
