"""VQ-VAE on waveforms (van den Oord et al., 2017): six convolutions of stride 2, one codebook of 512, 250 codes a second.

    slm train recipes/codec/vqvae.py --out runs/vqvae

The decoder makes all samples at once and lowers spectral distances, where the paper has a WaveNet and a likelihood; without
critics. `--set stages.codec.generator.codec.layers=9` is about the rate at which the paper's codes follow phones.
"""

from dataclasses import replace
from pathlib import Path

from slm.data.sounds import Sounds
from slm.recipe import Recipe, load, main
from slm.stage.adversarial import Adversarial
from slm_tokenizers.taught import TaughtCodec
from slm_tokenizers.vqvae import VQVAE

soundstream = load(Path(__file__).with_name("soundstream.py"))


def recipe() -> Recipe:
    r = soundstream.recipe()
    codec = TaughtCodec.Config(VQVAE.Config(), teacher=0, commit=0.25, dropout=False)
    r.stages = {"codec": Adversarial.Config(codec, replace(soundstream.SPECTRA, rate=16000), begin=-1)}
    r.data["codec"] = Sounds()
    return r


def small() -> Recipe:
    r = recipe()
    codec = r.stages["codec"].generator.codec
    codec.layers, codec.n_q, codec.card, codec.dim, codec.width, codec.residuals = 8, 2, 16, 8, 8, 1
    r = soundstream.quick(r)
    r.data["codec"].hop = 256
    return r


if __name__ == "__main__":
    main(__file__)
