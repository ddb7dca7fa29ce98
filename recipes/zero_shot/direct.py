"""The default voice with a second stage of one pass: recipes/zero_shot/default.py, and how it sounds said at once as a regression.

    slm train recipes/zero_shot/direct.py --stage semantic
    slm train recipes/zero_shot/direct.py --stage acoustic
    slm speak "Hello." --voice prompt.wav --model runs/direct

A seventh of the passes, and one loss in the place of seven. On codes of recipes/codec/taughtmel.py; its decoder then learns to sharpen
what this stage says (recipes/codec/toldmel.py).
"""

from pathlib import Path

from slm.backbone.transformer import Transformer
from slm.condition.guide import Guide
from slm.condition.voice import Voice
from slm.recipe import Recipe, load, main
from slm.stage.direct import Direct

default = load(Path(__file__).parent / "default.py")


def recipe(dim: int = 192, depth: int = 6, heads: int = 3, codec: str = "runs/taughtmel/codec", latent: int = 128) -> Recipe:
    r = default.recipe(dim, depth, heads, codec)
    r.stages["semantic"].voice.latent = latent
    backbone = Transformer.Config(dim, depth, heads, causal=False, adaptive=64)
    r.stages["acoustic"] = Direct.Config(backbone=backbone, guide=Guide.Config(), voice=Voice.Config(latent, dim=dim), confuse=0.15)
    return r


def small() -> Recipe:
    r = default.small()
    backbone = Transformer.Config(32, 1, 2, causal=False, adaptive=64)
    r.stages["acoustic"] = Direct.Config(backbone=backbone, voice=Voice.Config(8, 16, 32), confuse=0.15)
    return r


if __name__ == "__main__":
    main(__file__)
