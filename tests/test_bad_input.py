"""What each tokenizer and vocoder refuses, in one sentence that names the value and what is legal."""

import pytest
import torch

from slm.errors import SlmError
from slm_tokenizers.codec import Codec
from slm_tokenizers.encodec import Encodec
from slm_tokenizers.factorized import FACodec
from slm_tokenizers.kmeansmel import KMeansMel
from slm_tokenizers.melvq import MelVQ
from slm_tokenizers.soundstream import SoundStream
from slm_tokenizers.speechtokenizer import SpeechTokenizer
from slm_tokenizers.taught import TaughtCodec
from slm_tokenizers.vqvae import VQVAE
from slm_vocoders.hifigan import HiFiGAN

SMALL = {
    "codec": Codec.Config(
        n_q=2, card=16, dim=8, enc_width=16, enc_high=1, enc_low=1, dec_width=16, dec_low=1, dec_high_width=16, dec_high=1
    ),
    "soundstream": SoundStream.Config(n_q=2, card=16, dim=8, n_filters=2),
    "encodec": Encodec.Config(dim=8, n_filters=2),
    "speechtokenizer": SpeechTokenizer.Config(n_q=2, card=16, dim=8, n_filters=2),
    "vqvae": VQVAE.Config(n_q=2, card=16, dim=8, width=8, residuals=1),
    "melvq": MelVQ.Config(n_q=1, card=16, dim=8, width=16, residuals=1),
    "kmeansmel": KMeansMel.Config(card=16),
    "factorized": FACodec.Config(card=16, dim=8, voice=4, n_filters=2, ratios=(8, 5, 4, 2), residuals=1),
}
AUDIO = {
    "not a number": torch.full((1, 1, 3200), float("nan")),
    "infinite": torch.full((1, 1, 3200), float("inf")),
    "no samples": torch.zeros(1, 1, 0),
    "two channels": torch.zeros(1, 2, 3200),
    "no batch": torch.zeros(1, 3200),
}


@pytest.fixture(scope="module")
def built():
    torch.manual_seed(0)
    return {name: config.build().eval() for name, config in SMALL.items()}


@pytest.mark.parametrize("what", AUDIO)
@pytest.mark.parametrize("name", SMALL)
def test_no_codec_makes_codes_of_what_is_not_audio(name, what, built):
    with pytest.raises(SlmError):
        built[name].encode(AUDIO[what])


@pytest.mark.parametrize("name", SMALL)
def test_no_codec_makes_audio_of_what_are_not_its_codes(name, built):
    codec = built[name]
    voice = {"voice": torch.zeros(1, 4)} if name == "factorized" else {}
    good = torch.zeros(1, codec.n_q, 3, dtype=torch.long)
    for bad in (good + codec.card, good - 1, good.float(), good[0], good.repeat(1, 2, 1)[:, : codec.n_q + 1]):
        with pytest.raises(SlmError):
            codec.decode(bad, **voice)


def test_a_teacher_of_another_rate_or_of_unknown_classes_is_refused():
    taught = TaughtCodec.Config(SMALL["codec"], teacher=5).build()
    audio = torch.randn(1, 1, 3200) * 0.1
    with pytest.raises(SlmError, match=r"\[1, 20\] frames but the codec makes \[1, 10\]"):
        taught.reconstruct({"audio": audio, "teacher": torch.zeros(1, 20, dtype=torch.long)})
    with pytest.raises(SlmError, match="class 5 is outside 0 to 4"):
        taught.reconstruct({"audio": audio, "teacher": torch.full((1, 10), 5)})


def vocoder() -> HiFiGAN:
    config = HiFiGAN.Config.v3()
    config.channels = 16
    return config.build().eval()


@pytest.mark.parametrize(
    "mel, says",
    [
        (torch.linspace(-80, 0, 800).view(1, 80, 10), "decibels"),
        (torch.linspace(0, 40, 800).view(1, 80, 10), "linear"),
        (torch.full((1, 80, 10), float("nan")), "NaN"),
        (torch.zeros(1, 60, 10), "80"),
        (torch.zeros(1, 80, 0), "frames > 0"),
    ],
)
def test_a_vocoder_refuses_what_is_no_log_mel(mel, says):
    with pytest.raises(SlmError, match=says):
        vocoder()(mel)


def test_mels_of_quiet_and_of_loud_audio_are_accepted():
    made = vocoder()
    assert made.config.mel is not None
    mel = made.config.mel.build()
    for loud in (0.0, 1e-4, 1.0):
        made(mel(loud * torch.randn(1, 1, 8192).clamp(-1, 1)))


def test_a_mel_codec_refuses_a_vocoder_of_another_mel(built):
    with pytest.raises(SlmError, match="rate 22050 but this codec's has 16000"):
        built["melvq"].decode(torch.zeros(1, 1, 10, dtype=torch.long), vocoder=vocoder())


def test_a_first_batch_of_one_vector_repeated_still_makes_codebooks():
    from slm_tokenizers.quantize.learn import LearnedCodebooks

    learned = LearnedCodebooks(8, 2, 16)
    learned(torch.ones(2, 8, 10))
    assert learned.embed.isfinite().all()
