"""EnCodec (Défossez et al., 2022) at 24 kHz, trained: SoundStream with an LSTM, five complex spectra and balanced losses.

    slm train recipes/codec/encodec.py --out runs/encodec

The weights are the paper's: mel 1, adversarial 3, features 3, as shares of the gradient at the audio; there is no distance of
waveforms (0.1 in the paper). The published weights, where you have them, need no training: `slm_tokenizers.load(path)`.
"""

from pathlib import Path

from slm.recipe import Recipe, load, main
from slm_tokenizers.soundstream import encodec
from slm_vocoders.discriminators import MultiSTFT

soundstream = load(Path(__file__).with_name("soundstream.py"))


def recipe() -> Recipe:
    r = soundstream.recipe()
    stage = r.stages["codec"]
    stage.generator.codec = encodec()
    stage.discriminators = [MultiSTFT.Config()]
    stage.mel, stage.adversarial, stage.feature, stage.balance = 1.0, 3.0, 3.0, True
    r.train["codec"].lr = 3e-4
    return r


def small() -> Recipe:
    return soundstream.smaller(recipe())


if __name__ == "__main__":
    main(__file__)
