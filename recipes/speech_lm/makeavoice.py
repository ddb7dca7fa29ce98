"""Make-A-Voice (Huang et al., 2023): what is said as units, then how it sounds as three codec levels; the second half alone changes voices.

    slm train recipes/represent/hubert.py --stage units …              # runs/hubert/units
    slm align data/train && slm align data/synthetic
    slm train recipes/speech_lm/makeavoice.py --stage units            # S1: phones -> units
    slm train recipes/speech_lm/makeavoice.py --stage codes            # S2: units -> three levels, in the voice they begin with
    slm train recipes/vocoder/hifigan_codes.py                         # S3: codes -> audio; or the codec's own decoder
    slm study recipes/study/makeavoice.py

The speaker's prompt is no extra input: its units stand before those to be said, and its codes are how the three levels begin. That is
learned of rows in which another recording of the speaker goes before. A voice is changed by another's units behind the prompt's. Units
keep their repetitions, so S2 says as many frames as there are units and cannot end early or run on. Differences: S1 is a decoder alone
where the paper has an encoder too, and draws where it has a beam of 10; the levels are the bundled codec's, 50 frames a second as in the
paper; pitch, of the paper's singing, is not told. The paper reports a speaker cosine of 0.80 after changing voices and 4.04 of 5 for its
speech.
"""

from slm.backbone.transformer import Transformer
from slm.data.aligned import Aligned
from slm.data.beside import Beside
from slm.data.continued import Continued
from slm.data.madeup import MadeUpUtterances
from slm.data.splits import HELD_OUT
from slm.data.texts import Texts
from slm.recipe import Recipe, main
from slm.stage.lm import LM
from slm.stream.part import Part
from slm.stream.sample import Sampling
from slm.train.loop import Train
from slm_tokenizers.codec import tiny
from slm_tokenizers.text.phonemes import Phonemes


def recipe(dim: int = 1024, depth: int = 12, heads: int = 16, units: str = "runs/hubert/units", levels: int = 3) -> Recipe:
    said = Part("acoustic", (0, levels), like="units")
    sampling = Sampling(temperature=0.8, top_p=0.95)
    train = Train(steps=500_000, lr=1e-4, betas=(0.9, 0.98), warmup=10_000)
    return Recipe(
        tokenizers={"text": Phonemes.Config(), "units": units, "acoustic": "default"},
        stages={
            "units": LM.Config(
                [Part("text", learn=False), Part("units", end=True)],
                Transformer.Config(dim, depth, heads, positions="sinusoidal", dropout=0.1),
                sampling={"units": sampling},
                cap=20.0,
            ),
            "codes": LM.Config(
                [Part("units", learn=False), said],
                Transformer.Config(dim, depth, heads, dropout=0.1),
                sampling={"acoustic": sampling},
                places={"units": 1.0, "acoustic": 1 / levels},  # codes stand where their unit does
            ),
        },
        data={
            "units": Texts(Aligned(held_out=HELD_OUT)),
            "codes": Beside(Continued(Aligned(held_out=HELD_OUT))),
        },
        train={"units": train, "codes": train},
    )


def small() -> Recipe:
    r = recipe(32, 1, 2, levels=2)
    r.tokenizers |= {"units": tiny(1), "acoustic": tiny(3)}
    r.data = {"units": Texts(MadeUpUtterances()), "codes": Beside(Continued(MadeUpUtterances(), prompt=(8, 16), longest=60))}
    r.train = {stage: Train(steps=3, warmup=1, every=2) for stage in r.stages}
    return r


if __name__ == "__main__":
    main(__file__)
