"""A decoder that learns further: what it is taught on, that codes stay, and the mean latents that it makes sound."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
import soundfile
import torch
import torch.nn.functional as F

import slm_tokenizers
from slm import recipe as recipes
from slm.codes import fingerprint
from slm.data.aligned import Aligned
from slm.data.madeup import utterance
from slm.data.prepare import prepare
from slm.data.told import Told
from slm.errors import SlmError
from slm.model import load
from slm.train.loop import fit
from slm.train.run import tokenizers, train_recipe

ROOT = Path(__file__).parent.parent
DEFAULT, REFINED = ROOT / "recipes/zero_shot/masked.py", ROOT / "recipes/codec/refined.py"


@pytest.fixture(scope="module")
def teller(tmp_path_factory):
    """The folder of a small default model whose acoustic stage says means."""
    out = tmp_path_factory.mktemp("teller")
    for stage in ("semantic", "acoustic"):
        train_recipe(DEFAULT, stage, out, ["stages.acoustic.mean=True"], small=True, quiet=True)
    return out


def said(folder, rows=3):
    """The acoustic stage and a batch of utterances of unequal length."""
    model = load(folder)
    data = recipes.load(DEFAULT).small().data["acoustic"].build(model.tokenizers)
    batch = data.at(0)
    batch = {key: value[:rows] for key, value in batch.items() if isinstance(value, list)}
    return model.stages["acoustic"], batch | {"given": [codes[:1] for codes in batch["acoustic"]]}


@torch.no_grad()
def test_the_mean_latent_is_every_code_s_vector_weighted_with_its_probability(teller):
    stage, batch = said(teller, rows=1)
    out = stage.run(batch, [0])
    codes, latent = out["acoustic"][0], out["latent"][0]
    lengths = torch.tensor([codes.shape[1]])
    context = stage.context(batch, lengths)
    expected = stage.embed[0][codes[0]]
    for level in range(1, stage.n_q):
        hidden = torch.ones(1, codes.shape[1], dtype=torch.bool)
        scores = stage.scores(codes[None].clone(), lengths, torch.tensor([level]), hidden, context)[0]
        assert torch.equal(scores.argmax(-1), codes[level])
        for frame in range(codes.shape[1]):
            chances = F.softmax(scores[frame], 0)
            expected[frame] += sum(chance * vector for chance, vector in zip(chances, stage.embed[level]))
    torch.testing.assert_close(latent, expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_row_s_mean_latent_does_not_depend_on_its_batch_mates(teller):
    stage, batch = said(teller)
    together = stage.run(batch, [0, 1, 2])["latent"]
    assert len({len(row) for row in together}) > 1, "rows of one length would prove nothing about padding"
    for i, row in enumerate(together):
        alone = stage.run({key: value[i : i + 1] for key, value in batch.items()}, [i])["latent"][0]
        torch.testing.assert_close(row, alone, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_the_chances_of_a_drawn_level_are_told_and_their_mean_is_heard(teller):
    model = load(teller)
    acoustic, batch = said(teller)
    given = {key: batch[key] for key in ("text", "duration", "prompt")}
    drawn = model.stages["semantic"].run(given, [0, 1, 2])
    chances = drawn["semantic_chances"]
    for row, codes in zip(chances, drawn["semantic"]):
        assert row.shape == (len(codes), acoustic.card)
        torch.testing.assert_close(row.sum(-1), torch.ones(len(codes)))
    for i, row in enumerate(chances):
        alone = model.stages["semantic"].run({key: value[i : i + 1] for key, value in given.items()}, [i])["semantic_chances"][0]
        torch.testing.assert_close(row, alone, atol=1e-5, rtol=1e-4)
    whole = given | {"duration": drawn["duration"], "semantic": [codes[None] for codes in drawn["semantic"]]}
    again = model.stages["semantic"].chances(whole, "semantic")
    for at_once, row in zip(again, chances, strict=True):
        torch.testing.assert_close(at_once, row, atol=1e-5, rtol=1e-4)
    batch = batch | {"given": [codes[None] for codes in drawn["semantic"]]}
    hard, soft = (acoustic.run(b, [0, 1, 2])["latent"] for b in (batch, batch | {"given_chances": chances}))
    for h, s, codes, row in zip(hard, soft, drawn["semantic"], chances):
        torch.testing.assert_close(s - h, row @ acoustic.embed[0] - acoustic.embed[0][codes], atol=1e-4, rtol=1e-4)


def test_a_decoder_learns_further_and_every_code_stays(tmp_path, teller):
    before = slm_tokenizers.load(teller / "codec")
    small = recipes.load(REFINED).small()
    small.stages["sound"].generator.codec = str(teller / "codec")
    stage = small.stages["sound"].build()
    fit(stage, small.data["sound"].build({"acoustic": before}), small.train["sound"], tmp_path / "run", quiet=True)
    stage.generator.write(tmp_path / "out")
    after = slm_tokenizers.load(tmp_path / "out" / "codec")
    audio = utterance(3, 1, 20, 40, 320, 16000)[2][None]
    codes = before.encode(audio)
    assert torch.equal(codes, after.encode(audio)) and fingerprint(before) == fingerprint(after)
    assert not torch.equal(before.decode(codes), after.decode(codes))
    assert asdict(before.config) == asdict(after.config)


@pytest.fixture
def corpus(tmp_path):
    """A prepared and aligned folder of made-up speech by two speakers."""
    source, folder = tmp_path / "speech", tmp_path / "prepared"
    source.mkdir()
    symbols = recipes.load(DEFAULT).small().tokenizers["text"].build().symbols
    rows, manifest = [], []
    for i in range(4):
        text, duration, audio = utterance(i, i % 2, 20, 39, 320, 16000)
        soundfile.write(source / f"{i}.wav", audio[0].numpy(), 16000)
        manifest.append({"id": str(i), "path": f"{i}.wav", "text": "made up", "speaker": f"s{i % 2}"})
        rows.append({"id": str(i), "phones": [[symbols[int(s)], int(n)] for s, n in zip(text, duration)]})
    (source / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in manifest))
    prepare(source, folder)
    (folder / "phones.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def told(corpus, teller, tmp_path, **options):
    built = {**load(teller).tokenizers}
    speech = Aligned((str(corpus),), longest=100_000, cache=str(tmp_path / "codes"))
    return Told(speech, str(teller), seconds=0.4, batch=4, **options).build(built), built["acoustic"]


def test_a_decoder_s_crops_are_audio_and_the_latents_of_just_that_audio(corpus, teller, tmp_path):
    crops, codec = told(corpus, teller, tmp_path, share=0.0, whole=1.0)
    batch = crops.at(0)
    assert batch["audio"].shape == (4, 1, 6400) and batch["latent"].shape == (4, 20, codec.config.dim)
    for audio, latent in zip(batch["audio"], batch["latent"]):
        clip = next(c for c in crops.clips if find(c, audio) is not None)
        at = find(clip, audio)
        expected = codec.codebooks.decode(clip.codes[None, :, at : at + 20])[0].T
        torch.testing.assert_close(latent, expected)
    assert all(torch.equal(batch[key], crops.at(0)[key]) for key in batch), "a step is a function of seed and step"
    assert not torch.equal(batch["audio"], crops.at(1)["audio"])


def test_what_a_model_says_is_said_once_and_kept(corpus, teller, tmp_path, monkeypatch):
    crops, _ = told(corpus, teller, tmp_path, share=1.0)
    monkeypatch.setattr("slm.data.told._say", lambda *_: pytest.fail("said again"))
    again, _ = told(corpus, teller, tmp_path, share=1.0)
    assert torch.equal(crops.at(5)["latent"], again.at(5)["latent"])
    clip = crops.clips[0]
    assert clip.latent.shape == (clip.codes.shape[1], crops.codec.config.dim) and clip.latent.isfinite().all()


def test_a_model_that_says_codes_cannot_teach_a_decoder(corpus, teller, tmp_path):
    other = tmp_path / "says codes"
    shutil.copytree(teller, other)
    described = json.loads((other / "config.json").read_text())
    described["stages"]["acoustic"]["mean"] = False
    (other / "config.json").write_text(json.dumps(described))
    with pytest.raises(SlmError, match="mean=True"):
        told(corpus, other, tmp_path)


def test_a_model_of_another_codec_cannot_teach_a_decoder(corpus, teller, tmp_path):
    built = tokenizers(recipes.load(DEFAULT).small())
    built["acoustic"].codebooks.embed += 1
    with pytest.raises(SlmError, match="another codec"):
        Told(Aligned((str(corpus),), longest=100_000, cache=str(tmp_path / "codes")), str(teller), seconds=0.4).build(built)


def find(clip, audio):
    """The frame of the clip at which the crop [1,N] starts, or None."""
    crop = (audio[0] * 32767).round().to(torch.int16).numpy()
    starts = range(0, len(clip.audio) - len(crop) + 1, 320)
    return next((at // 320 for at in starts if (clip.audio[at : at + len(crop)] == crop).all()), None)
