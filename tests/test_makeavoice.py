"""Texts lie beside their own codes; a changed voice begins with the target's codes and has the source's units behind them."""

import pytest
import torch

from slm.backbone.transformer import Transformer
from slm.data.madeup import MadeUpUtterances
from slm.data.texts import Texts, made_up
from slm.errors import SlmError
from slm.stage.lm import LM, Stream
from slm.stream.part import Part
from slm.stream.sample import Sampling
from slm.study import makeavoice
from slm.study.spoken import others, unit_errors
from slm_tokenizers.codec import tiny
from slm_tokenizers.text.phonemes import Phonemes


@pytest.fixture(scope="module")
def tokenizers() -> dict:
    torch.manual_seed(0)
    return {"text": Phonemes.Config().build(), "units": tiny(1).build().eval(), "acoustic": tiny(3).build().eval()}


def test_a_text_lies_beside_its_own_codes_and_another_utterance_of_its_speaker(tokenizers):
    data = Texts(MadeUpUtterances()).build(tokenizers)
    items = {tuple(item.text.tolist()): item for item in data.batches.items}
    whole = {id: tokenizers["units"].encode(sound[None])[0, 0] for id, sound in sounds(tokenizers).items()}
    for step in range(4):
        batch = data.at(step)
        assert set(batch) == {"text", "units", "prompt"}
        for text, units, prompt in zip(batch["text"], batch["units"], batch["prompt"]):
            item = items[tuple(text.tolist())]
            assert torch.equal(units, whole[item.id])
            same = [o for o in data.spoken.others[item.speaker] if o is not item]
            latents = [data.spoken.latents(o.codes) for o in same]
            assert any(has(row, prompt) for row in latents) and not has(data.spoken.latents(item.codes), prompt)
    again, first = Texts(MadeUpUtterances()).build(tokenizers).at(2), data.at(2)
    assert all(torch.equal(a, b) for name in first for a, b in zip(first[name], again[name]))


def sounds(tokenizers: dict) -> dict[str, torch.Tensor]:
    from slm.data.madeup import utterance

    of = MadeUpUtterances()
    return {str(i): utterance(of.seed + i, i % 4, of.phones, tokenizers["text"].card, 320, 16000)[2] for i in range(of.count)}


def has(row: torch.Tensor, piece: torch.Tensor) -> bool:
    """Whether piece [P,E] is a part of row [T,E]."""
    return any(torch.allclose(row[i : i + len(piece)], piece) for i in range(len(row) - len(piece) + 1))


def test_utterances_that_are_too_long_are_left_out(tokenizers):
    found = made_up(MadeUpUtterances(), tokenizers, "units")
    lengths = sorted(len(codes) for codes in found.values())
    data = Texts(MadeUpUtterances(), longest=lengths[6]).build(tokenizers)
    assert sorted(item.codes.shape[1] for item in data.batches.items) == [n for n in lengths if n <= lengths[6]]
    with pytest.raises(SlmError, match="at most 2 frames"):
        Texts(MadeUpUtterances(), longest=2).build(tokenizers)


@pytest.fixture
def stage() -> LM:
    torch.manual_seed(0)
    parts = [Part("units", learn=False), Part("acoustic", (0, 2), like="units")]
    known = {"units": Stream(9), "acoustic": Stream(16, 3)}
    made = LM.Config(parts, Transformer.Config(16, 1, 2), sampling={"acoustic": Sampling(1.0, top_p=1.0)}).build(known).eval()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.5) if parameter.dim() > 1 else None  # so that what is heard changes what is said
    return made


def clip(frames: int, seed: int) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {"units": torch.randint(9, (frames,), generator=draw), "acoustic": torch.randint(16, (2, frames), generator=draw)}


def test_a_changed_voice_has_as_many_frames_as_the_source_and_is_said_alone(stage, monkeypatch):
    monkeypatch.setattr(makeavoice, "PROMPT", 6)
    clips = [clip(n, n) for n in (15, 11, 18)]
    made = makeavoice.converted(stage, clips, clips[1:] + clips[:1], [1, 2, 3])
    assert [codes.shape for codes in made] == [(2, 9), (2, 5), (2, 12)], "the source's frames behind the prompt"
    for i in range(3):
        alone = makeavoice.converted(stage, [clips[i]], [clips[(i + 1) % 3]], [i + 1])[0]
        assert torch.equal(alone, made[i])


def test_what_a_changed_voice_goes_on_from_are_the_targets_codes_and_units(stage, monkeypatch):
    """Half of the source lies before the prompt's end and must have no effect; all the target's after it, neither."""
    monkeypatch.setattr(makeavoice, "PROMPT", 6)
    source, target = clip(14, 1), clip(12, 2)
    made = makeavoice.converted(stage, [source], [target], [5])[0]
    before, after = clip(14, 3), clip(12, 4)
    mixed = {name: torch.cat([before[name][..., :6], source[name][..., 6:]], -1) for name in source}
    assert torch.equal(makeavoice.converted(stage, [mixed], [target], [5])[0], made)
    mixed = {name: torch.cat([target[name][..., :6], after[name][..., 6:]], -1) for name in target}
    assert torch.equal(makeavoice.converted(stage, [source], [mixed], [5])[0], made)
    assert not torch.equal(makeavoice.converted(stage, [source], [after], [5])[0], made)


def test_the_others_are_other_speakers_and_errors_are_over_units():
    assert others(["a", "a", "b", "a"]) == [2, 2, 3, 2]
    with pytest.raises(SlmError, match="one speaker"):
        others(["a", "a"])
    assert unit_errors([(torch.tensor([1, 2, 3, 4]), torch.tensor([1, 3, 4]))]).value == pytest.approx(0.25)
