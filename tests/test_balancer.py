"""The loss balancer: gradients at the audio in the proportions of the weights, whatever the losses' own scales.

B rows, N samples.
"""

import pytest
import torch
from torch import Tensor

from slm.errors import SlmError
from slm.stage.adversarial import Adversarial
from slm_tokenizers.codec import Codec
from slm_tokenizers.taught import TaughtCodec
from slm_vocoders.balancer import Balancer
from slm_vocoders.discriminators import MultiSTFT
from slm_vocoders.losses import MultiMel

TINY = Codec.Config(n_q=2, card=16, dim=8, enc_width=16, enc_high=1, enc_low=1, dec_width=16, dec_low=1, dec_high_width=16, dec_high=1)
WEIGHTS = {"mel": 1.0, "feature": 3.0, "adversarial": 6.0}


def losses_of(fake: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Three losses whose gradients differ by powers of ten."""
    off = fake - target
    return {"mel": 1e-4 * off.abs().mean(), "feature": 1e3 * off.square().mean(), "adversarial": (fake.sin() * target).sum()}


def gradients(losses: dict[str, Tensor], fake: Tensor) -> dict[str, Tensor]:
    return {name: torch.autograd.grad(loss, fake, retain_graph=True)[0] for name, loss in losses.items()}


def norm(gradient: Tensor) -> float:
    return float(gradient.flatten(1).norm(dim=1).mean())


def audio(seed: int, rows: int = 3) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    fake, target = torch.randn(2, rows, 1, 50, generator=draw)
    return fake.requires_grad_(), target


def test_the_norms_of_the_gradients_are_as_the_weights():
    fake, target = audio(0)
    raw = losses_of(fake, target)
    before = {name: norm(g) for name, g in gradients(raw, fake).items()}
    after = gradients(Balancer(tuple(WEIGHTS), total=2.0)(raw, WEIGHTS, fake), fake)
    assert max(before.values()) > 1e3 * min(before.values())
    for name, weight in WEIGHTS.items():
        assert norm(after[name]) == pytest.approx(2.0 * weight / 10, rel=1e-5)
        cosine = torch.cosine_similarity(after[name].flatten(), gradients(raw, fake)[name].flatten(), dim=0)
        assert cosine > 0.9999, "only the length may change"


def test_the_values_stay_and_a_sum_reaches_what_is_behind_the_audio():
    torch.manual_seed(0)
    made = torch.nn.Linear(8, 50)
    fake, target = made(torch.randn(2, 1, 8)), torch.randn(2, 1, 50)
    raw = losses_of(fake, target)
    balanced = Balancer(tuple(WEIGHTS))(raw, WEIGHTS, fake)
    assert all(torch.equal(balanced[name], raw[name]) for name in raw)
    pulls = sum(gradients(balanced, fake).values())
    (wanted,) = torch.autograd.grad(fake, made.weight, pulls, retain_graph=True)
    sum(balanced.values()).backward()
    assert torch.allclose(made.weight.grad, wanted, rtol=1e-5) and wanted.abs().sum() > 0


def test_the_average_is_that_of_the_paper_by_hand():
    balancer, decay = Balancer(("mel",), decay=0.9), 0.9
    norms = []
    for step in range(5):
        fake, target = audio(step)
        raw = {"mel": 10.0**step * (fake - target).square().mean()}
        pull = gradients(raw, fake)["mel"]
        norms.append(norm(pull))
        weights = [decay**age for age in range(len(norms))][::-1]
        average = sum(w * n for w, n in zip(weights, norms)) / sum(weights)
        assert torch.allclose(gradients(balancer(raw, {"mel": 5.0}, fake), fake)["mel"], pull / average, rtol=1e-4)
    before = balancer.norms.clone()
    balancer.eval()(raw, {"mel": 1.0}, fake)
    assert torch.equal(balancer.norms, before), "only training moves the average"


def test_a_loss_that_is_not_there_yet_has_no_share():
    fake, target = audio(1)
    balancer = Balancer(tuple(WEIGHTS))
    raw = losses_of(fake, target)
    alone = balancer({"mel": raw["mel"]}, WEIGHTS, fake)
    assert norm(gradients(alone, fake)["mel"]) == pytest.approx(1.0, rel=1e-5)
    assert float(balancer.seen[1]) == 0 and float(balancer.seen[0]) > 0
    later = balancer(raw, WEIGHTS, fake)
    assert norm(gradients(later, fake)["adversarial"]) == pytest.approx(0.6, rel=1e-5)


def test_a_loss_without_gradient_and_a_pass_without_gradients_do_no_harm():
    fake, target = audio(2)
    nothing = {"mel": (fake * 0).sum(), "feature": (fake - target).abs().mean()}
    assert all(g.isfinite().all() for g in gradients(Balancer(tuple(WEIGHTS))(nothing, WEIGHTS, fake), fake).values())
    with torch.no_grad():
        raw = losses_of(fake, target)
        assert Balancer(tuple(WEIGHTS))(raw, WEIGHTS, fake) is raw


def test_a_mistake_is_one_sentence():
    fake, target = audio(3)
    raw = losses_of(fake, target)
    with pytest.raises(SlmError, match="'adversarial'.*mel, feature"):
        Balancer(("mel", "feature"))(raw, WEIGHTS, fake)
    with pytest.raises(SlmError, match="sum to 0"):
        Balancer(tuple(WEIGHTS))(raw, dict.fromkeys(WEIGHTS, 0), fake)
    with pytest.raises(SlmError, match="decay is 1.0"):
        Balancer(("mel",), decay=1.0)


@pytest.fixture(scope="module")
def batch():
    return {"audio": torch.randn(2, 1, 6400, generator=torch.Generator().manual_seed(0)) * 0.1}


def stage(balance: bool, **weights: float) -> Adversarial:
    torch.manual_seed(0)
    spectra = MultiMel.Config(16000, (256,), (20,))
    critics = [MultiSTFT.Config((256,), 2)]
    codec = TaughtCodec.Config(TINY, teacher=0, dropout=False)
    return Adversarial.Config(codec, spectra, discriminators=critics, balance=balance, **weights).build()


def at_the_audio(adversarial: Adversarial, batch: dict) -> dict[str, Tensor]:
    """The gradient of each loss of the stage at the generator's audio."""
    made = adversarial.generator.reconstruct(batch)
    adversarial.generator.reconstruct = lambda _: made
    losses = adversarial(batch)
    names = ("mel", "stft", "adversarial", "feature")
    return gradients({name: losses[name] for name in names}, made.fake) | {"commit": losses["commit"]}


def test_the_adversarial_stage_balances_when_told_to(batch):
    adversarial = stage(True, mel=1.0, stft=2.0, adversarial=3.0, feature=4.0)
    found = at_the_audio(adversarial, batch)
    for name in ("mel", "stft", "adversarial", "feature"):
        assert norm(found[name]) == pytest.approx(getattr(adversarial.config, name) / 10, rel=1e-4)
    assert found["commit"].detach() > 0, "losses that do not hang on the audio are left alone"
    assert {"balancer.norms", "balancer.seen"} <= set(adversarial.state_dict()), "a resumed run must go on where it stopped"


def test_the_adversarial_stage_is_what_it_was_when_not(batch):
    """Values are the same with and without; without, gradients are those of the weighted losses and there is no new state."""
    plain = stage(False)
    ours, theirs = plain(batch), stage(True)(batch)
    assert list(ours) == ["commit", "mel", "stft", "adversarial", "feature"] == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert not any("balancer" in name for name in plain.state_dict())
    once, twice = at_the_audio(stage(False, mel=1.0), batch), at_the_audio(stage(False, mel=2.0), batch)
    assert torch.allclose(2 * once["mel"], twice["mel"]) and torch.equal(once["stft"], twice["stft"])
