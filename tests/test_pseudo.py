"""A made-up language is a rule and nothing else; rows hold the translation of their own text; each task is judged by what it says."""

from pathlib import Path

import pytest
import torch

from slm import recipe
from slm.data.dialogues import every
from slm.data.pseudo import Translated, translate, word
from slm.data.talks import TalkRows, Talks
from slm.stage.tasks import Tasks
from slm.study import audiopalm
from slm_tokenizers.text.bytes import Bytes

ROOT = Path(__file__).parent.parent
TEXT = Bytes()


def test_words_are_exchanged_for_others_and_stand_in_reverse_order():
    assert translate("who likes milk") == f"{word('milk')} {word('likes')} {word('who')}"
    assert translate("") == "" and word("Milk") == word("milk") == "mude", "the same on every machine, in every version"


def test_no_two_words_of_the_dialogues_share_a_translation():
    known = {plain.lower() for pair in every() for text in pair for plain in text.split()}
    assert len({word(plain) for plain in known}) == len(known) > 80
    texts = {text for pair in every() for text in pair}
    assert len({translate(text) for text in texts}) == len(texts), "so that a translation has one original"


def test_each_row_has_the_translation_of_its_own_text_also_when_turned():
    said = {"asked": torch.tensor([1]), "replied": torch.tensor([2])}
    talk = said | {"asked_text": TEXT.encode("who likes milk"), "replied_text": TEXT.encode("Anna likes milk")}

    class Made:
        def build(self, tokenizers: dict) -> TalkRows:
            return TalkRows(Talks(batch=30, swap=True), [talk])

    batch = Translated(Made()).build({"text": TEXT}).at(0)
    for side in ("asked", "replied"):
        assert {row.item() for row in batch[side]} == {1, 2}, "some rows are turned"
        for sound, text, told in zip(batch[side], batch[f"{side}_text"], batch[f"{side}_pseudo"]):
            plain = "who likes milk" if sound.item() == 1 else "Anna likes milk"
            assert TEXT.decode(text) == plain and TEXT.decode(told) == translate(plain)


def sounding(translation: str) -> torch.Tensor:
    """Units that tell the sentence."""
    return TEXT.encode(translation) % 7


class Knows:
    """A stage that says what its tag asks for, of the sentence that the units number."""

    def __init__(self, texts: list[str], tasks: dict) -> None:
        self.texts, self.config = texts, Tasks.Config(tasks)

    def run(self, batch: dict, seeds: list[int], task: str) -> dict:
        given = batch.get("asked") or [torch.tensor([self.texts.index(TEXT.decode(row))]) for row in batch["asked_text"]]
        texts = [self.texts[int(row)] for row in given]
        written = {"asked_text": [TEXT.encode(text) for text in texts], "asked_pseudo": [TEXT.encode(translate(text)) for text in texts]}
        return written | {"asked_spoken": [sounding(translate(text)) for text in texts]}

    def tagged(self, task: str, rows: int) -> list:
        return [torch.tensor([0])] * rows

    def loss(self, batch: dict) -> dict:
        return {f"ast.{name}": torch.tensor(1.0) for name in batch if name in ("asked_text", "asked_pseudo", "asked_spoken")}


def test_a_model_that_knows_all_makes_no_errors_but_with_anothers_speech_or_another_tag():
    texts = [asked for asked, _ in every()[:4]]
    talks = [
        {"asked": torch.tensor([i]), "asked_text": TEXT.encode(text), "replied_text": TEXT.encode(f"{i}")} for i, text in enumerate(texts)
    ]
    talks = [
        talk | {"asked_pseudo": TEXT.encode(translate(text)), "asked_spoken": sounding(translate(text))} for talk, text in zip(talks, texts)
    ]
    tasks = recipe.load(ROOT / "recipes" / "speech_lm" / "audiopalm.py").TASKS
    found = {name: figure.value for name, figure in audiopalm.figures(Knows(texts, tasks), talks).items()}
    for task in audiopalm.SPOKEN:
        assert found[f"{task}: unit errors"] == 0 and found[f"{task}: the right sentence"] == 1
        assert found[f"{task}: unit errors, another's"] > 0.02 and found[f"{task}: the right sentence, by chance"] == 1 / 4
    for task in audiopalm.SAID:
        assert found[f"{task}: letter errors"] == 0 and found[f"{task}: right"] == 1
        assert found[f"{task}: letter errors, another's"] > 0.02 and found[f"{task}: letter errors, as if by the other tag"] > 0.5
    wrong = [audiopalm.edits(TEXT.encode(translate(a)), TEXT.encode(translate(b))) for a, b in zip(texts, texts[1:] + texts[:1])]
    assert found["ast: letter errors, another's"] == pytest.approx(sum(wrong) / sum(len(translate(text)) for text in texts))


def test_the_translation_is_told_after_the_text_where_both_are_asked_for():
    small = recipe.load(ROOT / "recipes" / "speech_lm" / "audiopalm.py").small()
    tokenizers = {name: config.build() for name, config in small.tokenizers.items()}
    from slm.train.run import streams

    stage = small.stages["lm"].build(streams(tokenizers)).eval()
    data = small.data["lm"].build(tokenizers)
    batches = [data.at(step) for step in range(60)]
    seen = {}
    for batch in batches:
        seen[stage.names[int(batch["task"][0])]] = set(stage.loss(batch))
    assert seen == {
        "asr": {"asr.asked_text"}, "mt": {"mt.asked_pseudo"}, "ast": {"ast.asked_pseudo"},
        "asr_ast": {"asr_ast.asked_text", "asr_ast.asked_pseudo"}, "s2st": {"s2st.asked_spoken"},
        "asr_ast_s2st": {"asr_ast_s2st.asked_text", "asr_ast_s2st.asked_pseudo", "asr_ast_s2st.asked_spoken"},
    }  # fmt: skip
    said = stage.run({"asked": [torch.tensor([1, 2, 3])]}, [0], "asr_ast")
    assert {"asked_text", "asked_pseudo"} <= set(said)
    assert "asked_text" not in stage.run({"asked": [torch.tensor([1, 2, 3])]}, [0], "ast")
