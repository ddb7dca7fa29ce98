"""default.py with the finer levels as masked parallel decoding (SoundStorm, Borsos et al., 2023), in seven passes instead of one.

    slm train recipes/zero_shot/masked.py --stage semantic
    slm train recipes/zero_shot/masked.py --stage acoustic
    slm speak "Hello." --voice prompt.wav --model runs/masked

Levels are said as the mean of what they may be; --set stages.acoustic.mean=False draws them. On codes of recipes/codec/spectral.py, whose
decoder then learns to make means sound (recipes/codec/refined.py): this was the default voice until a regression and mels took its place.
"""

from pathlib import Path

from slm.backbone.transformer import Transformer
from slm.condition.guide import Guide
from slm.condition.voice import Voice
from slm.recipe import Recipe, load, main
from slm.stage.masked import Masked

default = load(Path(__file__).parent / "default.py")


def recipe(dim: int = 192, depth: int = 6, heads: int = 3, codec: str = "runs/codec/codec", latent: int = 64) -> Recipe:
    r = default.recipe(dim, depth, heads, codec)
    r.stages["semantic"].voice.latent = latent
    r.stages["acoustic"] = masked(Transformer.Config(dim, depth, heads, causal=False, adaptive=64), Voice.Config(latent, dim=dim))
    r.train["acoustic"].steps = 3150
    return r


def masked(backbone: Transformer.Config, voice: Voice.Config) -> Masked.Config:
    return Masked.Config(backbone=backbone, guide=Guide.Config(), voice=voice, mean=True, confuse=0.15)


def small() -> Recipe:
    r = default.small()
    r.stages["acoustic"] = masked(Transformer.Config(32, 1, 2, causal=False, adaptive=64), Voice.Config(8, 16, 32))
    return r


if __name__ == "__main__":
    main(__file__)
