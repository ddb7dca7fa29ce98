"""A mel quantiser with a vocoder of its own: what was saved without one is what it was, codes stay, and pieces are the whole.

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
from slm.speak import load
from slm.train.loop import fit
from slm.train.run import train_stage
from slm_tokenizers import pieces, stored
from slm_tokenizers.codec import tiny
from slm_tokenizers.griffinlim import griffin_lim
from slm_tokenizers.melvq import MelVQ
from slm_tokenizers.sounding import SoundingMelVQ
from slm_vocoders.vocos import Vocos

RECIPE = Path(__file__).parent.parent / "recipes/codec/soundmel.py"
MEL = LogMel.Config(8000, 256, 80, 256, 20, 0.0, 4000.0, center=False)
SILENT = MelVQ.Config(MEL, layers=1, n_q=2, card=16, dim=8, width=16, residuals=1)
VOCODER = Vocos.Config(n_in=40, rate=8000, hop=160, n_fft=320, width=16, low=1, high_width=16, high=1)


def built(config: MelVQ.Config = SILENT) -> MelVQ:
    """The same weights each time, as they are stored; codes of every entry are likely."""
    torch.manual_seed(0)
    codec = config.build().as_stored().eval()
    with torch.no_grad():
        z = codec.latent_of(codec.spectrum(noise(160 * codec.hop)))[0].T  # [T,D]
    codec.codebooks.embed[:] = torch.stack([z[:160:10], (z[5:160:10] - z[:160:10]) / 2])
    return codec


def sounding(**shape) -> MelVQ:
    codec = built(replace(SILENT, **shape))
    codec.give(replace(VOCODER, n_in=20 * codec.fold, hop=codec.hop, n_fft=2 * codec.hop))
    return codec.as_stored().eval()


def noise(samples: int, rows: int = 1) -> torch.Tensor:
    return torch.randn(rows, 1, samples, generator=torch.Generator().manual_seed(samples)) * 0.1


def drawn(frames: int, rows: int = 1) -> torch.Tensor:
    """codes [B,2,T]"""
    return torch.randint(16, (rows, 2, frames), generator=torch.Generator().manual_seed(frames))


def test_a_folder_written_before_there_were_vocoders_loads_and_sounds_as_it_did(tmp_path):
    codec = built()
    stored.save(codec, tmp_path)
    described = json.loads((tmp_path / "config.json").read_text())
    assert described["config"].pop("vocoder") is None
    (tmp_path / "config.json").write_text(json.dumps(described))
    loaded, said = slm_tokenizers.load(tmp_path), drawn(30)
    assert loaded.vocoder is None and not code_files.can_be_cut(loaded) and not any("vocoder" in name for name in loaded.state_dict())
    mel = loaded.decoder(loaded.codebooks.decode(said).transpose(1, 2)) * 2.5 - 5.0
    assert torch.equal(loaded.decode(said, 4001), griffin_lim(mel, MEL)[..., :4001])
    assert torch.equal(loaded.sound(loaded.codebooks.decode(said)), griffin_lim(mel, MEL))


def test_a_vocoder_changes_the_sound_and_nothing_else():
    before, after, audio = built(), sounding(), noise(4000, 2)
    codes = before.encode(audio)
    assert codes.unique().numel() > 8
    assert torch.equal(after.encode(audio), codes) and torch.equal(after.mel(codes), before.mel(codes))
    assert fingerprint(after) == fingerprint(before)
    assert asdict(after.config) == asdict(before.config) | {"vocoder": asdict(after.vocoder.config)}
    with torch.no_grad():
        heard = after.folded(after.mel(codes))
        for t in (0, 13, 24):
            mels = (before.mel(codes)[:, :, 2 * t : 2 * t + 2] + 5.0) / 2.5
            assert torch.equal(heard[:, :, t], mels.flatten(1))
        assert torch.equal(after.decode(codes), after.vocoder(heard))
    assert torch.equal(after.sound(after.codebooks.decode(codes)), after.decode(codes))
    assert torch.equal(after.decode(codes, 3999), after.decode(codes)[..., :3999])
    torch.testing.assert_close(after.decode(codes[1:])[0], after.decode(codes)[1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("shape", [{}, {"layers": 0}, {"layers": 2, "residuals": 2}], ids=str)
def test_nothing_beyond_the_receptive_field_is_heard(shape):
    codec = sounding(**shape)
    side, hop, middle = codec.receptive_field, codec.hop, 40
    said = drawn(81)
    other = said.clone()
    other[..., middle] = (other[..., middle] + 7) % 16
    changed = (codec.decode(said) - codec.decode(other))[0, 0].abs().view(-1, hop).amax(1).nonzero().flatten()
    assert side - 3 <= int((changed - middle).abs().max()) <= side, "as far as it says, or three frames less"
    audio, near = noise(81 * hop), slice((middle - side) * hop, (middle + side + 1) * hop)
    other = noise(81 * hop, 2)[1:]
    other[..., near] = audio[..., near]
    codes, others = codec.encode(audio), codec.encode(other)
    assert torch.equal(codes[..., middle], others[..., middle]) and not torch.equal(codes, others)


@pytest.mark.parametrize("samples", [1, 77, 4000, 20_003])
def test_a_long_file_in_pieces_is_the_file_at_once(samples, monkeypatch):
    codec, audio = sounding(), noise(samples, 2)
    codes = codec.encode(audio)
    assert torch.equal(pieces.encode_in_pieces(codec, audio, seconds=0.1), codes)
    whole = codec.decode(codes, samples)
    close = {"atol": 1e-5 * float(whole.abs().max()), "rtol": 0}
    for seconds in (0.02, 0.1, 0.5):
        torch.testing.assert_close(pieces.decode_in_pieces(codec, codes, samples, seconds), whole, **close)
    if samples == 20_003:
        monkeypatch.setattr(codec, "receptive_field", codec.receptive_field // 2)
        assert (pieces.decode_in_pieces(codec, codes, samples, 0.1) - whole).abs().max() > 10 * close["atol"]
        with pytest.raises(SlmError, match="in pieces"):
            pieces.decode_in_pieces(built(), codes)


def test_an_hour_need_not_fit_in_memory_to_be_decoded(tmp_path, monkeypatch):
    stored.save(sounding(), tmp_path / "codec")
    soundfile.write(tmp_path / "in.wav", noise(12_345)[0, 0].numpy(), 8000)
    code_files.encode_file(tmp_path / "in.wav", tmp_path / "codes.safetensors", str(tmp_path / "codec"))
    code_files.decode_file(tmp_path / "codes.safetensors", tmp_path / "whole.wav")
    monkeypatch.setattr(code_files, "PIECE", 0.3)
    longest, decode = [], MelVQ.decode
    monkeypatch.setattr(MelVQ, "decode", lambda self, codes, *more: longest.append(codes.shape[-1]) or decode(self, codes, *more))
    code_files.decode_file(tmp_path / "codes.safetensors", tmp_path / "cut.wav")
    whole, cut = (torch.from_numpy(soundfile.read(tmp_path / f"{name}.wav")[0]) for name in ("whole", "cut"))
    assert len(cut) == len(whole) == 12_345 and (cut - whole).abs().max() <= 1e-4 < whole.std()
    assert len(longest) == 6 and max(longest) < 78


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """The folder of a codec before and after its vocoder learned as the recipe says, the stage, and the distances of mels then."""
    out = tmp_path_factory.mktemp("learned")
    stored.save(built(), out / "before")
    stage = recipes.load(RECIPE).small().stages["sound"]
    stage.generator = SoundingMelVQ.Config(str(out / "before"), VOCODER)
    stage.spectra.rate = 8000
    train = replace(recipes.load(RECIPE).small().train["sound"], steps=16, every=16, lr=4e-3, warmup=2, ema=0.0)
    data = MadeUpSounds(0.4, 4, 8000, 160, codec="acoustic").build({"acoustic": slm_tokenizers.load(out / "before")})
    torch.manual_seed(1)
    module = stage.build()
    before = module.spectra(*sounds(module, data))
    fit(module, data, train, out / "run", quiet=True)
    module.generator.write(out)
    return out, module, float(before), float(module.spectra(*sounds(module, data)))


@torch.no_grad()
def sounds(module, data):
    made = module.generator.reconstruct(data.at(0))
    return made.real, made.fake


def test_the_vocoder_learns_and_every_code_stays(learned):
    out, module, first, last = learned
    assert last < 0.8 * first, (first, last)
    before, after, audio = slm_tokenizers.load(out / "before"), slm_tokenizers.load(out / "codec"), noise(6000, 2)
    assert type(after) is MelVQ and fingerprint(after) == fingerprint(before)
    codes = before.encode(audio)
    assert torch.equal(after.encode(audio), codes) and torch.equal(after.mel(codes), before.mel(codes))
    weights = after.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in before.state_dict().items())
    assert not torch.equal(before.decode(codes), after.decode(codes))
    assert torch.equal(module.generator.finished().decode(codes), after.decode(codes)), "what is loaded is what was written"


def test_nothing_but_the_vocoder_is_learned_or_kept_in_checkpoints():
    generator = SoundingMelVQ.Config(SILENT, VOCODER).build()
    assert {name.split(".")[0] for name in generator.state_dict()} == {"vocoder"}
    codec = generator.finished()
    assert [id(p) for p in generator.parameters()] == [id(p) for p in codec.vocoder.parameters()]
    made = generator.reconstruct({"audio": noise(3200), "latent": codec.codebooks.decode(drawn(20)).transpose(1, 2)})
    assert torch.equal(made.fake, codec.decode(drawn(20))), "it learns on what it will say"
    made.fake.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in generator.parameters())
    assert all(p.grad is None for name, p in codec.named_parameters() if not name.startswith("decoder.vocoder."))


def test_a_codec_that_sounds_already_goes_on_from_there(learned):
    out, _, _, last = learned
    after, latent = slm_tokenizers.load(out / "codec"), torch.randn(1, 20, 8)
    again = SoundingMelVQ.Config(str(out / "codec")).build().reconstruct({"audio": noise(3200), "latent": latent})
    assert torch.equal(again.fake, after.sound(latent.transpose(1, 2)))
    anew = SoundingMelVQ.Config(str(out / "codec"), VOCODER).build().reconstruct({"audio": noise(3200), "latent": latent})
    assert not torch.equal(anew.fake, again.fake)


def test_a_voice_trained_on_the_silent_codec_speaks_with_the_one_that_sounds_and_teaches_it(learned, tone_voice, tmp_path):
    """Same fingerprint, so the folder takes the other's place; and what the voice says (Told) is what the vocoder learns on."""
    before, after = learned[0] / "before", learned[0] / "codec"
    recipe = recipes.load(RECIPE.parent.parent / "zero_shot/default.py").small()
    recipe.tokenizers["acoustic"] = str(before)
    for stage in recipe.stages:
        recipe.train[stage].steps = 1
        train_stage(recipe, stage, tmp_path / "voice", quiet=True)
    silent = load(tmp_path / "voice").speak("Hello.", voice=tone_voice)
    shutil.rmtree(tmp_path / "voice/codec")
    shutil.copytree(after, tmp_path / "voice/codec")
    speaker = load(tmp_path / "voice")
    sounded = speaker.speak("Hello.", voice=tone_voice)
    assert sounded.stop_reason == "end" and len(sounded.audio) == len(silent.audio)
    assert not torch.equal(sounded.audio, silent.audio)
    stage, codec = speaker.model.stages["acoustic"], speaker.codec
    given = {"text": [torch.arange(4)], "duration": [torch.full((4,), 5)], "given": [drawn(20)[0, :1]], "prompt_codes": [drawn(9)[0]]}
    latent = stage.run(given, [0])["latent"][0][None]
    made = SoundingMelVQ.Config(str(after)).build().reconstruct({"audio": noise(3200), "latent": latent})
    assert torch.equal(made.fake, codec.sound(latent.transpose(1, 2)))


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
    data = recipes.load(RECIPE).recipe().data["sound"]
    assert data.held_out == HELD_OUT and data.codec == "acoustic"


def refused(run) -> str:
    with pytest.raises(SlmError) as raised:
        run()
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(
    "wrong, says",
    [
        ({"n_in": 20}, "n_in is 20 but this codec's mel needs 40"),
        ({"rate": 16000}, "rate is 16000 but this codec's mel needs 8000"),
        ({"hop": 80}, "hop is 80 but this codec's mel needs 160"),
        ({"sourced": True}, "sourced is True but this codec's mel needs False"),
    ],
    ids=str,
)
def test_a_vocoder_of_other_frames_is_refused(wrong, says):
    assert says in refused(replace(SILENT, vocoder=replace(VOCODER, **wrong)).build)
    assert says in refused(SoundingMelVQ.Config(SILENT, replace(VOCODER, **wrong)).build)


def test_only_a_mel_quantiser_with_a_vocoder_learns_to_sound(tmp_path):
    stored.save(built(), tmp_path / "silent")
    stored.save(tiny().build(), tmp_path / "spectral")
    assert "silent has no vocoder yet" in refused(SoundingMelVQ.Config(str(tmp_path / "silent")).build)
    assert "holds a Codec" in refused(SoundingMelVQ.Config(str(tmp_path / "spectral"), VOCODER).build)
    assert "is missing" in refused(SoundingMelVQ.Config(str(tmp_path / "nowhere"), VOCODER).build)
