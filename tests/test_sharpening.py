"""A mel quantiser whose decoder learns to make sharp mels: what was saved before is what it was, codes stay, and pieces are the whole.

B batch, N samples, M mel bands, S mel frames a code frame, D width of a latent, T frames.
"""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import soundfile
import torch

import slm_tokenizers
from slm import codes as code_files
from slm import recipe as recipes
from slm.codes import fingerprint
from slm.data.madeup import MadeUpSounds, utterance
from slm.data.prepare import prepare
from slm.data.sounds import Sounds
from slm.data.splits import HELD_OUT
from slm.errors import SlmError
from slm.nn.mel import LogMel
from slm.sounding import Sounding
from slm.speak import load
from slm.train.loop import fit
from slm.train.run import train_stage
from slm_tokenizers import melvq, pieces, stored
from slm_tokenizers.codec import tiny
from slm_tokenizers.griffinlim import griffin_lim, magnitude
from slm_tokenizers.melvq import MelVQ, Sharp
from slm_tokenizers.sharpening import SharpeningMelVQ

RECIPE = Path(__file__).parent.parent / "recipes/codec/sharpmel.py"
MEL = LogMel.Config(8000, 256, 80, 256, 20, 0.0, 4000.0, center=False)
BLURRED = MelVQ.Config(MEL, layers=1, n_q=2, card=16, dim=8, width=16, residuals=1)
SHARP = Sharp.Config(width=16, blocks=1)


def built(config: MelVQ.Config = BLURRED) -> MelVQ:
    """The same weights each time, as they are stored; codes of every entry are likely."""
    torch.manual_seed(0)
    codec = config.build().as_stored().eval()
    with torch.no_grad():
        z = codec.latent_of(codec.spectrum(noise(160 * codec.hop)))[0].T  # [T,D]
    codec.codebooks.embed[:] = torch.stack([z[:160:10], (z[5:160:10] - z[:160:10]) / 2])
    return codec


def sharp(**shape) -> MelVQ:
    """One whose last part has something to add."""
    codec = built(replace(BLURRED, **shape))
    codec.sharpen(SHARP)
    torch.nn.init.normal_(codec.decoder.sharp.add.weight, std=0.1)
    return codec.as_stored().eval()


def noise(samples: int, rows: int = 1) -> torch.Tensor:
    return torch.randn(rows, 1, samples, generator=torch.Generator().manual_seed(samples)) * 0.1


def drawn(frames: int, rows: int = 1) -> torch.Tensor:
    """codes [B,2,T]"""
    return torch.randint(16, (rows, 2, frames), generator=torch.Generator().manual_seed(frames))


def test_a_folder_written_before_there_was_a_last_part_loads_and_sounds_as_it_did(tmp_path):
    codec = built()
    stored.save(codec, tmp_path)
    described = json.loads((tmp_path / "config.json").read_text())
    assert described["config"].pop("sharp") is None
    (tmp_path / "config.json").write_text(json.dumps(described))
    loaded, said = slm_tokenizers.load(tmp_path), drawn(30)
    assert not any("sharp" in name for name in loaded.state_dict())
    mel = loaded.decoder(loaded.codebooks.decode(said).transpose(1, 2)) * 2.5 - 5.0
    assert torch.equal(loaded.decode(said, 4001), griffin_lim(mel, MEL)[..., :4001])
    assert torch.equal(loaded.sound(loaded.codebooks.decode(said)), griffin_lim(mel, MEL))


def test_a_new_last_part_changes_nothing_until_it_has_learned_and_then_the_mels_alone():
    before, fresh, after, audio = built(), built(), sharp(), noise(4000, 2)
    fresh.sharpen(SHARP)
    codes = before.encode(audio)
    assert codes.unique().numel() > 8
    assert torch.equal(fresh.mel(codes), before.mel(codes)) and not torch.equal(after.mel(codes), before.mel(codes))
    assert torch.equal(after.encode(audio), codes) and fingerprint(after) == fingerprint(fresh) == fingerprint(before)
    assert asdict(after.config) == asdict(before.config) | {"sharp": asdict(SHARP)}
    torch.testing.assert_close(after.mel(codes[1:])[0], after.mel(codes)[1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("shape", [{}, {"layers": 0}, {"layers": 2, "residuals": 2}], ids=str)
@pytest.mark.parametrize("make", [sharp, lambda **shape: built(replace(BLURRED, **shape))], ids=["sharp", "as it was"])
def test_nothing_beyond_the_receptive_field_is_heard(make, shape):
    codec = make(**shape)
    side, hop, middle = codec.receptive_field, codec.hop, 40
    said = drawn(81)
    other = said.clone()
    other[..., middle] = (other[..., middle] + 7) % 16
    changed = (codec.mel(said) - codec.mel(other))[0].abs().amax(0).view(-1, codec.fold).amax(1).nonzero().flatten()
    assert 1 < int((changed - middle).abs().max()) <= side
    audio, near = noise(81 * hop), slice((middle - side) * hop, (middle + side + 1) * hop)
    other = noise(81 * hop, 2)[1:]
    other[..., near] = audio[..., near]
    codes, others = codec.encode(audio), codec.encode(other)
    assert torch.equal(codes[..., middle], others[..., middle]) and not torch.equal(codes, others)


def test_griffin_lim_is_that_of_torchaudio():
    from torchaudio.functional import griffinlim

    for config in (MEL, LogMel.Config(8000, 256, 80, 200, 40, 0.0, 4000.0, center=False)):
        audio = noise(8000) + 0.3 * torch.sin(torch.arange(8000) / 5)
        mel = config.build()(audio)
        side = config.n_fft // config.hop + 1
        wanted = magnitude(torch.nn.functional.pad(mel, (side, side), mode="replicate"), config)
        window, shape = torch.hann_window(config.win), (config.n_fft, config.hop, config.win)
        theirs = griffinlim(wanted, window, *shape, power=1.0, n_iter=8, momentum=0.99, length=None, rand_init=False)
        begin = side * config.hop - config.hop // 2
        theirs, ours = theirs[0, begin : begin + 8000], griffin_lim(mel, config, steps=8)[0, 0]
        assert (ours - theirs).norm() < 1e-3 * theirs.norm()


def test_griffin_lim_keeps_what_is_known_and_goes_on_from_it_without_a_break():
    """Steady tones in stretches: where nothing is known of the last one, the phase jumps."""
    curve = lambda audio: float(audio.diff(n=2).abs()[..., 4000 - 40 : 4000 + 40].max())  # noqa: E731
    whole, joined, broken = [], [], []
    for hertz in (130, 210, 437, 615, 800):
        mel = MEL.build()(0.3 * torch.sin(torch.arange(8000) * 2 * torch.pi * hertz / 8000)[None, None])  # [1,20,100]
        first = griffin_lim(mel[..., :60], MEL)[..., : 50 * 80]
        later, anew = griffin_lim(mel[..., 30:], MEL, known=first[..., 30 * 80 :]), griffin_lim(mel[..., 50:], MEL)
        assert torch.equal(later[..., : 20 * 80], first[..., 30 * 80 :])
        whole.append(curve(griffin_lim(mel, MEL)))
        joined.append(curve(torch.cat([first, later[..., 20 * 80 :]], -1)))
        broken.append(curve(torch.cat([first, anew], -1)))
    assert sum(joined) < 1.5 * sum(whole) and sum(broken) > 2 * sum(joined), (whole, joined, broken)


@torch.no_grad()
def test_what_sounds_in_stretches_is_one_sound():
    codec, latent = sharp(), sharp().codebooks.decode(drawn(90))[0]
    sounding, audio = Sounding(codec), torch.zeros(0)
    for start, stop in ((0, 25), (25, 60), (60, 90)):
        audio = torch.cat([audio, sounding.sound(latent[:, start : stop + 6], stop - start)])
    assert len(audio) == 90 * codec.hop
    wanted = codec.mel_of(latent[None]).exp()
    distance = lambda made: float((codec.spectrum(made).exp() - wanted).norm() / wanted.norm())  # noqa: E731
    whole = codec.sound(latent[None])
    assert distance(audio[None, None]) < 1.2 * distance(whole) + 0.02
    cut = torch.cat([codec.sound(latent[None, :, start:stop]) for start, stop in ((0, 25), (25, 60), (60, 90))], -1)
    assert distance(audio[None, None]) < distance(cut)


def test_a_long_file_is_coded_in_pieces_and_sounds_block_after_block(monkeypatch, tmp_path):
    codec, audio = sharp(), noise(20_003, 2)
    codes = codec.encode(audio)
    assert torch.equal(pieces.encode_in_pieces(codec, audio, seconds=0.1), codes)
    monkeypatch.setattr(melvq, "BLOCK", 40)
    heard = []
    monkeypatch.setattr(melvq, "griffin_lim", lambda mel, *more, **known: heard.append(mel.shape[-1]) or griffin_lim(mel, *more, **known))
    whole = codec.decode(codes, 20_003)
    assert len(heard) == 4 and max(heard) <= codec.fold * (40 + 2 * codec.receptive_field) and whole.shape == audio.shape
    assert torch.equal(pieces.decode_in_pieces(codec, codes, 20_003, 0.1), whole)
    stored.save(codec, tmp_path / "codec")
    soundfile.write(tmp_path / "in.wav", audio[0, 0].numpy(), 8000)
    monkeypatch.setattr(code_files, "PIECE", 0.3)
    code_files.encode_file(tmp_path / "in.wav", tmp_path / "codes.safetensors", str(tmp_path / "codec"))
    code_files.decode_file(tmp_path / "codes.safetensors", tmp_path / "out.wav")
    assert len(soundfile.read(tmp_path / "out.wav")[0]) == 20_003


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """The folder of a codec before and after its decoder learned as the recipe says, the stage, and the distances of mels then."""
    out = tmp_path_factory.mktemp("learned")
    stored.save(built(), out / "before")
    stage = recipes.load(RECIPE).small().stages["sharp"]
    stage.generator = SharpeningMelVQ.Config(str(out / "before"), SHARP)
    stage.discriminators[0].bands = ((0, 20), (0, 8))
    train = replace(recipes.load(RECIPE).small().train["sharp"], steps=16, every=16, lr=4e-3, warmup=2, ema=0.0)
    data = MadeUpSounds(0.4, 4, 8000, 160, codec="acoustic").build({"acoustic": slm_tokenizers.load(out / "before")})
    torch.manual_seed(1)
    module = stage.build()
    before = module.spectra(*mels(module, data))
    fit(module, data, train, out / "run", quiet=True)
    module.generator.write(out)
    return out, module, float(before), float(module.spectra(*mels(module, data)))


@torch.no_grad()
def mels(module, data):
    made = module.generator.reconstruct(data.at(0))
    return made.real, made.fake


def test_the_decoder_learns_and_every_code_stays(learned):
    out, module, first, last = learned
    assert last < 0.8 * first, (first, last)
    before, after, audio = slm_tokenizers.load(out / "before"), slm_tokenizers.load(out / "codec"), noise(6000, 2)
    assert type(after) is MelVQ and fingerprint(after) == fingerprint(before)
    codes = before.encode(audio)
    assert torch.equal(after.encode(audio), codes) and not torch.equal(after.mel(codes), before.mel(codes))
    assert torch.equal(module.generator.finished().decode(codes), after.decode(codes)), "what is loaded is what was written"
    shown = module.show({})
    assert shown == {}, "a mel is no sound"


def test_nothing_but_the_decoder_is_learned_or_kept_in_checkpoints():
    generator = SharpeningMelVQ.Config(BLURRED, SHARP).build()
    assert {name.split(".")[0] for name in generator.state_dict()} == {"decoder"}
    codec = generator.finished()
    assert [id(p) for p in generator.parameters()] == [id(p) for p in codec.decoder.parameters()]
    audio = noise(3200)
    made = generator.reconstruct({"audio": audio, "latent": codec.codebooks.decode(drawn(20)).transpose(1, 2)})
    torch.testing.assert_close(made.fake[:, 0] * 2.5 - 5.0, codec.mel(drawn(20)), atol=1e-5, rtol=0)  # it learns on what it will say
    torch.testing.assert_close(made.real[:, 0] * 2.5 - 5.0, codec.spectrum(audio), atol=1e-5, rtol=0)
    made.fake.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in generator.parameters())
    assert all(p.grad is None for name, p in codec.named_parameters() if not name.startswith("decoder."))


def test_a_codec_that_is_sharp_already_goes_on_from_there(learned):
    out = learned[0]
    after, batch = slm_tokenizers.load(out / "codec"), {"audio": noise(3200), "latent": torch.randn(1, 20, 8)}
    again = SharpeningMelVQ.Config(str(out / "codec"), None).build().reconstruct(batch)
    torch.testing.assert_close(again.fake[:, 0] * 2.5 - 5.0, after.mel_of(batch["latent"].transpose(1, 2)), atol=1e-5, rtol=0)
    anew = SharpeningMelVQ.Config(str(out / "codec"), SHARP).build().reconstruct(batch)
    assert not torch.equal(anew.fake, again.fake)


def test_a_voice_trained_on_the_blurred_codec_speaks_with_the_sharp_one_and_in_stretches(learned, tone_voice, tmp_path):
    """Same fingerprint, so the folder takes the other's place."""
    before, after = learned[0] / "before", learned[0] / "codec"
    recipe = recipes.load(RECIPE.parent.parent / "zero_shot/default.py").small()
    recipe.tokenizers["acoustic"] = str(before)
    for stage in recipe.stages:
        recipe.train[stage].steps = 1
        train_stage(recipe, stage, tmp_path / "voice", quiet=True)
        recipe.stages["semantic"].voice.width = 24  # what a recipe says later changes nothing of a stage that was trained
    blurred = load(tmp_path / "voice").speak("Hello there, and good morning.", voice=tone_voice)
    shutil.rmtree(tmp_path / "voice/codec")
    shutil.copytree(after, tmp_path / "voice/codec")
    speaker = load(tmp_path / "voice")
    said = speaker.speak("Hello there, and good morning.", voice=tone_voice)
    assert said.stop_reason == "end" and len(said.audio) == len(blurred.audio) and not torch.equal(said.audio, blurred.audio)
    stretches = list(speaker.stream("Hello there, and good morning.", voice=tone_voice))
    assert len(stretches) > 1 and torch.equal(torch.cat([each.audio for each in stretches]), said.audio)


def test_crops_bring_the_latents_of_their_own_codes_and_no_held_out_voice(tmp_path):
    (tmp_path / "speech").mkdir()
    rows = []
    for i, speaker in enumerate(("a", "b")):
        soundfile.write(tmp_path / f"speech/{i}.wav", utterance(i, i, 20, 39, 160, 8000)[2][0].numpy(), 8000)
        rows.append({"id": str(i), "path": f"{i}.wav", "text": "made up", "speaker": speaker})
    (tmp_path / "speech/manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    prepare(tmp_path / "speech", tmp_path / "prepared")
    sounds = Sounds((str(tmp_path / "prepared"),), 8000, 160, 0.4, 3, held_out=("b",), codec="acoustic")
    codec, bare = built(), sounds.build({"acoustic": torch.nn.Identity()})
    assert len(bare.clips) == 1
    batch = sounds.build({"acoustic": codec}).at(0)
    assert torch.equal(batch["codes"], codec.encode(batch["audio"])) and batch["latent"].shape == (3, 20, 8)
    assert torch.equal(batch["latent"].transpose(1, 2), codec.codebooks.decode(batch["codes"]))
    data = recipes.load(RECIPE).recipe().data["sharp"]
    assert data.held_out == HELD_OUT and data.codec == "acoustic"


def refused(run) -> str:
    with pytest.raises(SlmError) as raised:
        run()
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_only_a_mel_quantiser_learns_to_be_sharp(tmp_path):
    stored.save(tiny().build(), tmp_path / "spectral")
    assert "holds a Codec" in refused(SharpeningMelVQ.Config(str(tmp_path / "spectral")).build)
    assert "there is no tokenizer" in refused(SharpeningMelVQ.Config(str(tmp_path / "nowhere")).build)


def test_of_the_first_level_alone_it_learns_with_a_listener_and_codes_stay(tmp_path):
    before = built()
    stored.save(before, tmp_path)
    generator = SharpeningMelVQ.Config(str(tmp_path), sharp=None, levels=1, phones=0.3).build()
    audio, codes = noise(3200, 2), drawn(20, 2)
    batch = {"audio": audio, "codes": codes, "teacher": torch.arange(20).repeat(2, 1)}
    made = generator.reconstruct(batch)
    torch.testing.assert_close(made.fake[:, 0] * 2.5 - 5.0, before.mel(codes[:, :1]), atol=1e-5, rtol=0)
    assert made.losses.keys() == {"listening", "phones"}
    unknown = generator.reconstruct(batch | {"teacher": torch.full((2, 20), -1)})
    assert all(loss.item() == 0 for loss in unknown.losses.values())
    some = batch | {"teacher": torch.where(torch.arange(20) < 10, batch["teacher"], -1)}
    first = {name: x[..., : 10 * before.hop] if name == "audio" else x[..., :10] for name, x in batch.items()}
    generator.eval()
    near, alone = generator.reconstruct(some).losses["listening"], generator.reconstruct(first).losses["listening"]
    assert abs((near - alone).item()) < 0.1, "frames of which nothing is known are not asked for"
    after = generator.finished()
    assert after.n_q == after.codebooks.n_q == after.config.n_q == 1 and before.n_q == 2
    assert torch.equal(after.encode(audio), before.encode(audio, 1)) and torch.equal(after.mel(codes[:, :1]), before.mel(codes[:, :1]))
    generator.write(tmp_path / "cut")
    assert torch.equal(slm_tokenizers.load(tmp_path / "cut/codec").decode(codes[:, :1]), after.decode(codes[:, :1]))
    assert "levels 1 to 2" in refused(SharpeningMelVQ.Config(str(tmp_path), levels=3).build)
    assert SharpeningMelVQ.Config("default", sharp=None, levels=1).build().finished().n_q == 1, "a bundled codec goes by its name"
