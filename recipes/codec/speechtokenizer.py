"""SpeechTokenizer (Zhang et al., 2023): EnCodec's shape at 16 kHz and 50 frames a second, its first level taught what is said.

    slm align data/train && slm train recipes/codec/speechtokenizer.py --out runs/speechtokenizer

The teacher is the phone of each frame, as with the paper's pseudo-labels; its other variant follows the features of HuBERT. Wide:
103 M parameters. To expect: phones told from level 1 alone, and reconstruction a little worse than untaught.
"""

from dataclasses import replace
from pathlib import Path

from slm.data.sounds import Sounds
from slm.recipe import Recipe, load, main
from slm_tokenizers.soundstream import speechtokenizer
from slm_tokenizers.taught import TaughtCodec
from slm_vocoders.discriminators import MPD, MSD, MultiSTFT

soundstream = load(Path(__file__).with_name("soundstream.py"))


def recipe() -> Recipe:
    r = soundstream.recipe()
    stage = r.stages["codec"]
    stage.generator = TaughtCodec.Config(speechtokenizer(), distill=5.0)
    stage.spectra = replace(stage.spectra, rate=16000)
    stage.mel, stage.discriminators = 45.0, [MPD.Config(), MSD.Config(), MultiSTFT.Config()]
    r.data["codec"] = Sounds(seconds=3.0)
    return r


def small() -> Recipe:
    return soundstream.smaller(recipe())


if __name__ == "__main__":
    main(__file__)
