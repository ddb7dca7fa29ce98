"""What vocoders, their critics, losses and mels promise."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from slm.errors import SlmError
from slm.nn.mel import PRESETS, LogMel
from slm_vocoders import CodeHiFiGAN, HiFiGAN, ISTFTHead, load, save
from slm_vocoders.checkpoint import load_with_report
from slm_vocoders.discriminators import MPD, MSD, MultiSTFT, frozen
from slm_vocoders.istft import Synthesis
from slm_vocoders.losses import MultiMel, feature_match, hinge_d, hinge_g, lsgan_d, lsgan_g, mel_l1, multi_stft

TINY = HiFiGAN.Config(8, 16000, 16, (4, 2), (8, 4), 1, (3, 7), ((1, 3), (1, 3)))
TINY2 = replace(TINY, block=2, block_kernels=(3, 5), dilations=((1, 2), (2, 6)))
ODD = replace(TINY, rates=(4, 2), kernels=(7, 5), block_kernels=(3,), dilations=((1, 3),))
CONFIGS = [TINY, TINY2, ODD]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def lively(module: nn.Module) -> nn.Module:
    """Weights so large that every path through the network shows in its output."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            norm = name.endswith(("weight_g", "original0"))
            parameter.uniform_(0.5, 1) if norm else parameter.normal_(0, 0.15)
    return module


# --- mel


def reference_mel(config: LogMel.Config, audio: torch.Tensor) -> torch.Tensor:
    from torchaudio.transforms import MelSpectrogram

    pad = config.n_fft // 2 if config.center else (config.n_fft - config.hop) // 2
    mel = MelSpectrogram(
        config.rate, config.n_fft, config.win, config.hop, config.fmin, config.fmax, n_mels=config.n_mels, power=config.power,
        norm=config.norm, mel_scale=config.scale, center=False,
    )(F.pad(audio, (pad, pad), mode="reflect").squeeze(1))  # fmt: skip
    mel = mel.clamp(min=config.floor)
    return mel.log() if config.log == "ln" else mel.log10()


@pytest.mark.parametrize("name", PRESETS)
def test_a_mel_preset_equals_torchaudio(name):
    config = PRESETS[name]
    audio = torch.randn(2, 1, 5000) * 0.1
    mel = config.build()
    assert mel(audio).shape == (2, 80, mel.frames(5000))
    torch.testing.assert_close(mel(audio), reference_mel(config, audio), atol=2e-4, rtol=0)


def test_the_speecht5_mel_equals_transformers():
    from transformers import SpeechT5FeatureExtractor

    audio = torch.randn(1, 1, 6000) * 0.1
    theirs = SpeechT5FeatureExtractor()(audio_target=audio[0, 0].numpy(), sampling_rate=16000)["input_values"][0]
    torch.testing.assert_close(PRESETS["speecht5-16k"].build()(audio)[0].T, torch.tensor(theirs), atol=1e-4, rtol=0)


def test_hifigan_frames_stand_for_whole_hops():
    mel = PRESETS["hifigan22k"].build()
    assert [mel(torch.randn(1, 1, n)).shape[-1] for n in (512, 1023, 1024, 2560)] == [2, 3, 4, 10]


@pytest.mark.parametrize("name", PRESETS)
def test_a_mel_of_silence_is_finite_and_so_is_its_gradient(name):
    audio = torch.zeros(1, 1, 4000, requires_grad=True)
    mel = PRESETS[name].build()
    mel(audio).sum().backward()
    assert mel(audio).isfinite().all() and audio.grad.isfinite().all()


def test_a_mel_is_float32_under_autocast():
    mel, audio = PRESETS["codec16k"].build(), torch.randn(1, 1, 4000)
    with torch.autocast("cpu", torch.bfloat16):
        inside = mel(audio)
    assert torch.equal(inside, mel(audio))


@pytest.mark.parametrize(
    "build",
    [
        lambda: PRESETS["codec16k"].build()(torch.zeros(1, 1, 500)),
        lambda: PRESETS["codec16k"].build()(torch.zeros(1, 2, 5000)),
        lambda: LogMel.Config(fmax=9000.0).build(),
        lambda: LogMel.Config(scale="bark").build(),
        lambda: LogMel.Config(win=2048).build(),
    ],
)
def test_a_mel_refuses_what_it_cannot_do(build):
    with pytest.raises(SlmError):
        build()


# --- generator


@pytest.mark.parametrize("version,millions", [("v1", 13.93), ("v2", 0.93), ("v3", 1.46)])
def test_the_paper_s_sizes(version, millions):
    vocoder = getattr(HiFiGAN.Config, version)().build().remove_weight_norm()
    assert round(sum(p.numel() for p in vocoder.parameters()) / 1e6, 2) == millions
    with torch.no_grad():
        assert vocoder(torch.randn(2, 80, 3)).shape == (2, 1, 3 * 256)


@pytest.mark.parametrize("config", CONFIGS)
def test_a_frame_becomes_exactly_hop_samples(config):
    vocoder = config.build()
    for frames in (1, 2, 7):
        assert vocoder(torch.randn(1, 8, frames)).shape == (1, 1, frames * vocoder.hop)


@pytest.mark.parametrize("frozen_or_not", [False, True])
@pytest.mark.parametrize("gradient", [False, True])
def test_removing_weight_norm_changes_nothing_heard(frozen_or_not, gradient):
    vocoder, mel = lively(TINY.build()).requires_grad_(not frozen_or_not), torch.randn(1, 8, 9)
    normed, names = vocoder(mel), set(vocoder.state_dict())
    assert any("original0" in name for name in names)
    with torch.set_grad_enabled(gradient):
        vocoder.remove_weight_norm()
    torch.testing.assert_close(vocoder(mel), normed, atol=1e-6, rtol=0)
    assert len(vocoder.state_dict()) == 2 * len(vocoder.convolutions()) == len(list(vocoder.parameters()))
    assert not any("original" in name for name in vocoder.state_dict())
    assert all(p.requires_grad is not frozen_or_not for p in vocoder.parameters())
    torch.testing.assert_close(vocoder.add_weight_norm()(mel), normed, atol=1e-5, rtol=0)
    assert set(vocoder.state_dict()) == names


@pytest.mark.parametrize("config", CONFIGS)
def test_the_receptive_field_is_exact(config):
    vocoder = lively(config.build().remove_weight_norm()).double()
    field = vocoder.receptive_field
    mel = torch.randn(1, 8, 4 * field + 1, dtype=torch.double, requires_grad=True)
    middle = 2 * field
    vocoder(mel)[0, 0, middle * vocoder.hop : (middle + 1) * vocoder.hop].square().sum().backward()
    touched = mel.grad.abs().sum(1)[0].nonzero().flatten() - middle
    assert max(-touched.min(), touched.max()) == field


@pytest.mark.parametrize("config", CONFIGS)
def test_pieces_joined_are_the_whole_and_half_the_context_is_not_enough(config, monkeypatch):
    vocoder = lively(config.build().remove_weight_norm()).double()
    mel = torch.randn(2, 8, 50, dtype=torch.double)
    whole = vocoder(mel)
    for frames in (1, 7, 50, 99):
        torch.testing.assert_close(torch.cat(list(vocoder.pieces(mel, frames)), -1), whole, atol=1e-12, rtol=0)
    monkeypatch.setattr(HiFiGAN, "receptive_field", vocoder.receptive_field // 2)
    assert (torch.cat(list(vocoder.pieces(mel, 7)), -1) - whole).abs().max() > 1e-6


@pytest.mark.parametrize(
    "change",
    [dict(kernels=(8,)), dict(kernels=(2, 4)), dict(block=3), dict(channels=18), dict(block_kernels=(3, 4)), dict(mel=LogMel.Config())],
)
def test_shapes_that_cannot_be_built_are_refused(change):
    with pytest.raises(SlmError):
        replace(TINY, **change).build()


@pytest.mark.parametrize("shape", [(1, 9, 5), (1, 8, 0), (8, 5)])
def test_input_of_another_shape_is_refused(shape):
    with pytest.raises(SlmError):
        TINY.build()(torch.zeros(shape))


def test_codes_become_audio_and_wrong_codes_are_refused():
    vocoder = lively(CodeHiFiGAN.Config(3, 10, TINY).build())
    codes = torch.randint(10, (2, 3, 20))
    whole = vocoder(codes)
    assert whole.shape == (2, 1, 20 * 8)
    torch.testing.assert_close(torch.cat(list(vocoder.pieces(codes, 6)), -1), whole, atol=1e-5, rtol=0)
    swapped = codes.flip(1)  # the same ids on other levels are other sounds
    assert (vocoder(swapped) - whole).abs().max() > 0.01
    for bad in (codes[:, :2], codes + 1 + (codes == codes), codes - 10):
        with pytest.raises(SlmError):
            vocoder(bad)


# --- files


class Original(nn.Module):
    """The published generator, written down a second time: old weight norm, its names, its order of operations."""

    def __init__(self, c: HiFiGAN.Config):
        super().__init__()
        norm = torch.nn.utils.weight_norm
        self.c, width = c, c.channels
        self.conv_pre = norm(nn.Conv1d(c.n_in, width, 7, padding=3))
        self.ups, self.resblocks = nn.ModuleList(), nn.ModuleList()
        for r, k in zip(c.rates, c.kernels):
            self.ups.append(norm(nn.ConvTranspose1d(width, width // 2, k, r, padding=(k - r) // 2)))
            width //= 2
            for bk, ds in zip(c.block_kernels, c.dilations):
                block = nn.Module()
                for name, row in (("convs1", ds), ("convs2", [1] * len(ds))) if c.block == 1 else (("convs", ds),):
                    convs = [norm(nn.Conv1d(width, width, bk, dilation=d, padding=(bk * d - d) // 2)) for d in row]
                    block.add_module(name, nn.ModuleList(convs))
                self.resblocks.append(block)
        self.conv_post = norm(nn.Conv1d(width, 1, 7, padding=3))

    def forward(self, x):
        x = self.conv_pre(x)
        n = len(self.c.block_kernels)
        for i, up in enumerate(self.ups):
            x, total = up(F.leaky_relu(x, 0.1)), 0
            for block in self.resblocks[i * n : i * n + n]:
                y = x
                for j in range(len(self.c.dilations[0])):
                    z = (block.convs1 if self.c.block == 1 else block.convs)[j](F.leaky_relu(y, 0.1))
                    y = (block.convs2[j](F.leaky_relu(z, 0.1)) if self.c.block == 1 else z) + y
                total = total + y
            x = total / n
        return torch.tanh(self.conv_post(F.leaky_relu(x)))


def write_original(folder, config: HiFiGAN.Config) -> Original:
    model = lively(Original(config))
    words = dict(
        resblock=str(config.block), upsample_rates=config.rates, upsample_kernel_sizes=config.kernels,
        upsample_initial_channel=config.channels, resblock_kernel_sizes=config.block_kernels,
        resblock_dilation_sizes=config.dilations, num_mels=config.n_in, n_fft=32, hop_size=8, win_size=32,
        sampling_rate=config.rate, fmin=0, fmax=8000, fmax_for_loss=None,
    )  # fmt: skip
    (folder / "config.json").write_text(json.dumps(words))
    torch.save({"generator": model.state_dict()}, folder / "g_00000100")
    return model


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("config", [TINY, TINY2])
def test_the_original_layout_loads_with_no_difference(tmp_path, config):
    theirs = write_original(tmp_path, config)
    assert any(name.endswith("weight_g") for name in theirs.state_dict())
    mel = torch.randn(2, 8, 13)
    for path in (tmp_path, tmp_path / "g_00000100"):
        ours, report = load_with_report(path)
        assert (ours(mel) - theirs(mel)).abs().max() == 0.0
        assert report.complete and report.mapped["ups.1.weight"] == "ups.1.weight_v"
    assert ours.config.mel == LogMel.Config(16000, 32, 8, 32, 8, 0, 8000, center=False, eps=1e-9)


@pytest.mark.parametrize("normalize,safe", [(True, True), (False, True), (True, False)])
def test_the_transformers_layout_loads_with_no_difference(tmp_path, normalize, safe):
    from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

    theirs = SpeechT5HifiGan(
        SpeechT5HifiGanConfig(
            model_in_dim=8, upsample_initial_channel=16, upsample_rates=[4, 2], upsample_kernel_sizes=[8, 4],
            resblock_kernel_sizes=[3, 7], resblock_dilation_sizes=[[1, 3], [1, 3]], leaky_relu_slope=0.2, normalize_before=normalize,
        )
    ).eval()  # fmt: skip
    lively(theirs)
    theirs.mean.normal_()
    theirs.scale.uniform_(0.5, 2)
    theirs.save_pretrained(tmp_path)
    if not safe:
        (tmp_path / "model.safetensors").unlink()
        torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    mel = torch.randn(2, 8, 13)
    assert (load(tmp_path)(mel)[:, 0] - theirs(mel.transpose(1, 2))).abs().max() == 0.0


@pytest.mark.parametrize("config", [TINY2, replace(TINY, normalize=True), CodeHiFiGAN.Config(2, 10, TINY)])
def test_what_is_saved_loads_with_no_difference(tmp_path, config):
    ours = lively(config.build())
    save(ours, tmp_path)
    again = load(tmp_path)
    x = torch.randint(10, (1, 2, 9)) if isinstance(ours, CodeHiFiGAN) else torch.randn(1, 8, 9)
    assert again.config == config and not again.training
    assert torch.equal(again(x), ours.remove_weight_norm()(x))


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_weights_that_do_not_fit_are_named_and_refused(tmp_path):
    state = write_original(tmp_path, TINY).state_dict()
    del state["conv_post.bias"]
    state["conv_pre.bias"] = torch.zeros(3)
    state["extra"] = torch.zeros(1)
    torch.save({"generator": state}, tmp_path / "g_00000100")
    with pytest.raises(SlmError, match="conv_post.bias.*extra.*conv_pre.bias"):
        load(tmp_path)
    _, report = load_with_report(tmp_path)
    assert (report.missing, report.unexpected) == (["conv_post.bias"], ["extra"])
    assert report.misshapen == ["conv_pre.bias [3] instead of [16]"]


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("layout", ["original", "ours"])
def test_a_truncated_checkpoint_is_one_sentence(tmp_path, layout):
    if layout == "original":
        write_original(tmp_path, TINY)
    else:
        save(TINY.build(), tmp_path)
    file = next(path for path in tmp_path.iterdir() if path.name != "config.json")
    whole = file.read_bytes()
    for size in (0, 5, 100, len(whole) // 2, len(whole) - 3):
        file.write_bytes(whole[:size])
        with pytest.raises(SlmError):
            load(tmp_path)


class Trap:
    def __reduce__(self):
        return (exec, ("raise SystemExit",))


def test_a_file_that_would_run_code_or_describes_something_else_is_refused(tmp_path):
    with pytest.raises(SlmError, match="no vocoder at"):
        load(tmp_path / "nowhere")
    with pytest.raises(SlmError, match="holds no"):
        load(tmp_path)
    torch.save({"generator": Trap()}, tmp_path / "g_1")
    with pytest.raises(SlmError, match="config.json"):
        load(tmp_path)
    for words in ('{"class": "slm.nn.mel.LogMel.Config"}', '{"resblock": "1"}', "[]", "{"):
        (tmp_path / "config.json").write_text(words)
        with pytest.raises(SlmError, match="config.json"):
            load(tmp_path)
    save(TINY.build(), tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(SlmError, match="damaged or no checkpoint"):
        load(tmp_path)


# --- inverse STFT


@pytest.mark.parametrize("n_fft,hop", [(64, 16), (64, 20), (48, 24), (1280, 320)])
def test_synthesis_undoes_the_stft(n_fft, hop):
    audio = torch.randn(2, 1, 12 * hop)
    pad = (n_fft - hop) // 2
    spectrum = torch.stft(
        F.pad(audio, (pad, pad), mode="reflect")[:, 0], n_fft, hop, window=torch.hann_window(n_fft), center=False, return_complex=True
    )
    found = Synthesis(n_fft, hop)(spectrum.transpose(1, 2))
    assert found.shape == audio.shape
    torch.testing.assert_close(found, audio, atol=1e-5, rtol=0)


def test_the_istft_head_has_finite_gradients_even_where_exp_would_overflow():
    head = ISTFTHead(6, 64, 16)
    x = torch.randn(2, 5, 6, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        audio = head(x * 1000)
    assert audio.shape == (2, 1, 80) and audio.dtype == torch.float32
    audio.square().sum().backward()
    assert audio.isfinite().all() and x.grad.isfinite().all() and x.grad.abs().sum() > 0


def test_the_istft_head_refuses_frames_that_do_not_overlap():
    with pytest.raises(SlmError):
        ISTFTHead(6, 64, 40)


# --- critics and losses

CRITICS = {
    "mpd": MPD.Config((2, 3, 5), 1 / 16),
    "msd": MSD.Config(2, 1 / 16),
    "stft": MultiSTFT.Config((256, 128), 4),
}


def test_the_paper_s_critics_have_the_paper_s_sizes():
    sizes = [sum(p.numel() for p in critic.parameters()) / 1e6 for critic in (MPD.Config().build(), MSD.Config().build())]
    assert sizes == [pytest.approx(41.1, abs=0.05), pytest.approx(29.6, abs=0.05)]


@pytest.mark.parametrize("name", CRITICS)
@pytest.mark.parametrize("bf16", [False, True])
def test_a_critic_answers_in_scores_and_features_and_its_losses_reach_the_audio(name, bf16):
    critic = CRITICS[name].build()
    real, fake = torch.randn(2, 1, 1001), torch.randn(2, 1, 1001, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        said, of_fake = critic(real), critic(fake)
        losses = [lsgan_d(said, of_fake), lsgan_g(of_fake), hinge_d(said, of_fake), hinge_g(of_fake)]
        losses += [feature_match(said, of_fake), feature_match(said, of_fake, relative=True)]
    assert all(features[-1] is score and len(features) > 4 for score, features in said)
    for loss in losses:
        assert loss.dtype == torch.float32 and loss.shape == () and loss > 0
        (gradient,) = torch.autograd.grad(loss, fake, retain_graph=True)
        assert gradient.isfinite().all() and gradient.abs().sum() > 0
    sum(losses).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in critic.parameters())


@pytest.mark.parametrize("name", CRITICS)
def test_a_row_is_judged_alone(name):
    critic, audio = CRITICS[name].build().eval(), torch.randn(3, 1, 1001)
    both = dict(real=critic(audio[:1]), fake=critic(audio[:1]))
    assert feature_match(**both) == 0
    for (alone, _), (together, _) in zip(critic(audio[:1]), critic(audio)):
        torch.testing.assert_close(together[: alone.shape[0]], alone, atol=1e-5, rtol=1e-4)


def test_folded_periods_equal_the_paper_s_two_dimensional_convolutions():
    critic, audio = MPD.Config((3,), 1 / 16).build(), torch.randn(2, 1, 1001)
    x = F.pad(audio, (0, 1), mode="reflect").view(2, 1, 334, 3)
    tower = critic.towers[0]
    for i, conv in enumerate(tower.convs):
        x = F.leaky_relu(F.conv2d(x, conv.weight[..., None], conv.bias, (3 if i < 4 else 1, 1), (2, 0)), 0.1)
    x = F.conv2d(x, tower.last.weight[..., None], tower.last.bias, 1, (1, 0))
    ours = critic(audio)[0][0].unflatten(0, (2, 3)).permute(0, 2, 3, 1)
    torch.testing.assert_close(ours, x, atol=1e-5, rtol=1e-4)


def test_adversarial_losses_are_the_papers_formulas():
    real, fake = [(torch.tensor([0.5, 2.0]), [])], [(torch.tensor([-2.0, 0.5]), [])]
    assert lsgan_d(real, fake) == pytest.approx((0.25 + 1) / 2 + (4 + 0.25) / 2)
    assert lsgan_g(fake) == pytest.approx((9 + 0.25) / 2)
    assert hinge_d(real, fake) == pytest.approx(0.5 / 2 + 1.5 / 2)
    assert hinge_g(fake) == pytest.approx((3 + 0.5) / 2)
    layers = (
        [(real[0][0], [torch.tensor([2.0, -2.0]), torch.tensor([4.0])])],
        [(fake[0][0], [torch.tensor([2.0, 0.0]), torch.tensor([3.0])])],
    )
    assert feature_match(*layers) == pytest.approx(1 + 1)
    assert feature_match(*layers, relative=True) == pytest.approx((1 / 2 + 1 / 4) / 2)


def test_a_frozen_critic_passes_gradients_but_keeps_none():
    critic, fake = CRITICS["mpd"].build(), torch.randn(1, 1, 500, requires_grad=True)
    critic.towers[0].last.bias.requires_grad_(False)
    with frozen(critic):
        lsgan_g(critic(fake)).backward()
    assert fake.grad.abs().sum() > 0 and all(p.grad is None for p in critic.parameters())
    assert [p.requires_grad for p in critic.parameters()].count(False) == 1


def test_the_stft_critic_refuses_audio_shorter_than_its_window():
    with pytest.raises(SlmError):
        CRITICS["stft"].build()(torch.zeros(1, 1, 200))


@pytest.mark.filterwarnings("error")  # an empty mel filter would warn
def test_spectral_losses_are_zero_at_equality_and_grow_with_the_difference():
    real, noise = torch.randn(2, 1, 4000) * 0.1, torch.randn(2, 1, 4000) * 0.1
    mel = LogMel.Config().build()
    for loss in (MultiMel.Config().build(), multi_stft, lambda real, fake: mel_l1(mel, real, fake)):
        assert loss(real, real) == 0
        assert 0 < loss(real, real + 0.1 * noise) < loss(real, real + noise)
        for silent in (torch.zeros_like(real), real):
            fake = torch.zeros_like(real, requires_grad=True)
            loss(silent, fake).backward()
            assert fake.grad.isfinite().all()


def test_a_few_adversarial_steps_lower_the_mel_distance():
    mel = LogMel.Config(16000, 64, 8, 64, 8, 0.0, 8000.0, center=False).build()
    spectra = MultiMel.Config(16000, (64, 256), (8, 20)).build()
    generator, critic = TINY.build(), MPD.Config((2, 3), 1 / 16).build()
    optimisers = [torch.optim.AdamW(m.parameters(), 5e-3, (0.8, 0.99)) for m in (generator, critic)]
    time = torch.arange(1024) / 16000
    audio = 0.3 * torch.sin(2 * torch.pi * torch.tensor([[300.0], [700.0]]) * time)[:, None]
    distances = []
    for _ in range(30):
        fake = generator(mel(audio))
        loss_d = lsgan_d(critic(audio), critic(fake.detach()))
        optimisers[1].zero_grad()
        loss_d.backward()
        optimisers[1].step()
        with frozen(critic):
            judged = critic(fake)
            distance = spectra(audio, fake)
            loss = lsgan_g(judged) + 2 * feature_match(critic(audio), judged) + 45 * distance
            optimisers[0].zero_grad()
            loss.backward()
        assert all(p.grad.isfinite().all() for p in generator.parameters())
        optimisers[0].step()
        distances.append(distance.item())
    assert distances[-1] < 0.7 * distances[0]
