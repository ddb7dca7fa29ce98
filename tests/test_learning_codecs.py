"""DAC and Mimi learn: gradients everywhere, losses that fall, and the codes of a finished codec are those of its folder.

B batch, N samples, Q levels, T frames.
"""

import pytest
import torch

from slm.data.madeup import MadeUpSounds
from slm.errors import SlmError
from slm_tokenizers import load, stored
from slm_tokenizers.dac import DAC
from slm_tokenizers.learning_dac import LearningDAC
from slm_tokenizers.learning_mimi import LearningMimi, middle
from slm_tokenizers.mimi import Mimi
from slm_tokenizers.quantize.factorised import Factorised
from slm_tokenizers.quantize.learn import heard
from slm_tokenizers.quantize.learn_factorised import pull
from slm_vocoders.losses import MultiMel

TINY_DAC = LearningDAC.Config(DAC.Config(8000, 3, 16, 4, None, 4, 32, (5, 4, 4)))
TINY_MIMI = LearningMimi.Config(Mimi.Config(8000, 3, 1, 16, 4, 16, 4, (5, 4, 2), 2, 1, 2, 32, 8))
LEARNING = pytest.mark.parametrize("config", [TINY_DAC, TINY_MIMI], ids=["DAC", "Mimi"])
SPECTRA = MultiMel.Config(8000, (128, 512), (10, 40), floor=1e-3).build()


def speech(step: int = 0) -> dict:
    return MadeUpSounds(0.4, 4, 8000, 80).build({}).at(step)


def built(config):
    torch.manual_seed(0)
    return config.build().train()


def learn(learning, steps: int) -> list[dict[str, float]]:
    optimiser = torch.optim.Adam(learning.parameters(), 3e-3)
    history = []
    for _ in range(steps):
        made = learning.reconstruct(speech())
        losses = made.losses | {"mel": 15 * SPECTRA(made.real, made.fake)}
        optimiser.zero_grad()
        sum(losses.values()).backward()
        optimiser.step()
        history.append({name: loss.item() for name, loss in losses.items()})
    return history


@LEARNING
def test_the_sound_alone_moves_every_weight_of_encoder_and_decoder(config):
    config = type(config)(config.codec, dropout=False)
    learning = built(config)
    if isinstance(config, LearningMimi.Config):
        learning.config.raw = 0.0
    made = learning.reconstruct(speech())
    SPECTRA(made.real, made.fake).backward()
    still = [name for name, p in learning.codec.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert [name for name in still if "codebook" not in name] == []


@LEARNING
def test_losses_fall_and_the_folder_has_the_codes_that_were_learned(config, tmp_path):
    learning = built(config)
    history = learn(learning, 30)
    first, last = ({name: sum(h[name] for h in part) / 3 for name in history[0]} for part in (history[:3], history[-3:]))
    assert last["mel"] < 0.8 * first["mel"], (first, last)
    assert last.get("distill", 0) <= 0.97 * first.get("distill", 0), (first, last)
    finished, audio = learning.finished(), speech(9)["audio"][..., :3001]
    learning.write(tmp_path)
    loaded, codes = load(tmp_path / "codec"), finished.encode(audio)
    assert type(loaded) is type(finished) and not finished.training and not loaded.training
    assert codes.shape == (4, 3, 38) and torch.equal(loaded.encode(audio), codes)
    assert torch.equal(loaded.decode(codes, 3001), finished.decode(codes, 3001))


@LEARNING
def test_an_untrained_latent_moves_about_zero(config):
    """With biases and weights as torch draws them, nearly all of Mimi's is the same in every frame, and codes fall together."""
    for seed in range(3):
        torch.manual_seed(seed)
        with torch.no_grad():
            latent = config.build().codec.latent(speech()["audio"])
        resting = latent.mean((0, 2)).square().mean() / latent.square().mean()
        assert resting < 0.2 and 0.1 < latent.square().mean().sqrt() / speech()["audio"].square().mean().sqrt() < 10


@LEARNING
def test_what_is_heard_while_learning_is_what_the_finished_codec_says(config, monkeypatch):
    monkeypatch.setattr(stored, "rounded", lambda codec: codec)
    learning = built(config)
    learn(learning, 3)
    with torch.no_grad():
        made = learning.eval().reconstruct(speech(1))
        finished = learning.finished()
        said = finished.decode(finished.encode(speech(1)["audio"]))[..., : made.fake.shape[-1]]
    assert torch.equal(made.real, speech(1)["audio"][..., : made.fake.shape[-1]])
    assert torch.allclose(said, made.fake, atol=1e-5)


def test_a_level_left_out_of_a_row_is_neither_heard_nor_pulled_there():
    torch.manual_seed(1)
    books, z = Factorised(3, 16, 12, 4), torch.randn(2, 12, 30, requires_grad=True)
    keep = torch.tensor([[True, False, False], [True, True, True]])
    q = pull(books, z, keep)
    assert torch.equal(q.codes, books.encode(z))
    assert torch.allclose(q.latent[:1], books.decode(q.codes[:1, :1]), atol=1e-5)
    assert torch.allclose(q.latent[1:], books.decode(q.codes[1:]), atol=1e-5)
    (q.commitment + q.codebook + q.latent.sum()).backward()
    alone = Factorised(3, 16, 12, 4)
    alone.load_state_dict(books.state_dict())
    one = pull(alone, z[1:])
    (0.5 * (one.commitment + one.codebook) + one.latent.sum()).backward()
    for mine, other in zip(books.quantizers[1:].parameters(), alone.quantizers[1:].parameters()):
        assert torch.allclose(mine.grad, other.grad, atol=1e-5)


def test_every_second_row_may_hear_fewer_levels():
    torch.manual_seed(2)
    counts = torch.stack([heard(4, 6, True, torch.device("cpu")).sum(1) for _ in range(60)])
    assert (counts[:, 1::2] == 6).all() and counts[:, ::2].unique().tolist() == [1, 2, 3, 4, 5, 6]
    assert heard(4, 6, False, torch.device("cpu")).all()


def test_some_rows_hear_the_latent_itself_in_training_only():
    learning = built(TINY_MIMI)
    latent, quantised = torch.zeros(200, 16, 1), torch.ones(200, 16, 1)
    assert 0.3 < learning.heard(latent, quantised).mean() < 0.7
    assert learning.eval().heard(latent, quantised).equal(quantised)


def test_a_frame_takes_the_label_in_its_middle():
    assert middle(torch.tensor([[3, 3, 7, 7, 2, 2, 2, 5]]), 2).tolist() == [[7, 2]]
    assert middle(torch.tensor([[1, 2, 3]]), 3).tolist() == [[1, 2, 3]]
    assert middle(torch.tensor([[1, 2, 3, 4, 5, 6]]), 2).tolist() == [[2, 5]]


def test_the_semantic_level_alone_is_taught():
    learning = built(TINY_MIMI)
    loss = learning.reconstruct(speech()).losses["distill"]
    loss.backward()
    parts = learning.codec.quantizer
    assert parts.semantic.inward.weight.grad.abs().sum() > 0 and parts.acoustic.inward.weight.grad is None


def test_speech_without_a_teacher_will_do_and_a_wrong_class_is_refused():
    learning, batch = built(TINY_MIMI), speech()
    assert set(learning.reconstruct({"audio": batch["audio"]}).losses) == {"commit"}
    with pytest.raises(SlmError, match="class 40 is outside 0 to 39"):
        learning.reconstruct({**batch, "teacher": torch.full_like(batch["teacher"], 40)})
