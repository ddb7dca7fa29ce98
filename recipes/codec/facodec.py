"""FACodec (Ju et al., 2024, NaturalSpeech 3): prosody, content and detail in codes of their own, the voice as one vector.

    slm align data/train && slm train recipes/codec/facodec.py --out runs/facodec

16 kHz, 80 frames a second, 1 + 2 + 3 levels of 1024 (4.8 kbit/s). Phones are labelled each 20 ms; a code frame takes the label
it lies in. `codec.decode(codec.encode(one), voice=codec.voice(other))` is meant to be one's words in the other's voice.
Shrunken, and for 500 steps on real speech, all levels keep their codes in use and the voice alone tells speakers well. Not shown
yet: that the reversal parts the streams, and that the voice moves to the other's. slm.evaluate.probe measures it in longer runs.
"""

from pathlib import Path

from slm.data.sounds import Sounds
from slm.recipe import Recipe, load, main
from slm.stage.adversarial import Adversarial
from slm_tokenizers.factorizing import LearningFactors

speechtokenizer = load(Path(__file__).with_name("speechtokenizer.py"))


def recipe() -> Recipe:
    r = speechtokenizer.recipe()
    was = r.stages["codec"]
    r.stages = {
        "codec": Adversarial.Config(LearningFactors.Config(), was.spectra, stft=0.0, feature=1.0, discriminators=was.discriminators)
    }
    r.data["codec"] = Sounds()
    return r


def small() -> Recipe:
    r = recipe()
    codec = r.stages["codec"].generator.codec
    codec.card, codec.dim, codec.voice, codec.n_filters, codec.ratios, codec.residuals = 16, 8, 4, 2, (8, 5, 4, 2), 1
    return speechtokenizer.soundstream.quick(r)


if __name__ == "__main__":
    main(__file__)
