"""Each phone is told its word, however its recording was aligned and wherever it is cut."""

import pytest
import torch

from slm.data.madeup import MadeUpUtterances
from slm.data.short import Short
from slm.data.utterances import Utterance, Utterances
from slm.data.worded import Worded, WordedRows, numbered
from slm.errors import SlmError
from slm_tokenizers.codec import tiny
from slm_tokenizers.text.phonemes import IDS, Phonemes

TEXT = "The apple, in 3 parts"


def ids(phones: str) -> torch.Tensor:
    return torch.tensor([IDS[phone] for phone in phones.split()])


def test_pauses_belong_to_the_word_before_them():
    heard = ids("sil DH IY0 AE1 P AH0 L IH0 N sil TH R IY1 sil P AA1 R T S sil")
    assert numbered(Phonemes(), TEXT, heard).tolist() == [0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4]
    alone = ids("DH IY0 AE1 P AH0 L IH0 N TH R IY1 P AA1 R T S")
    assert numbered(Phonemes(), TEXT, alone).tolist() == [0, 0, 1, 1, 1, 1, 2, 2, 3, 3, 3, 4, 4, 4, 4, 4]


def test_phones_of_another_text_are_refused():
    with pytest.raises(SlmError, match="are not those of 'The apple"):
        numbered(Phonemes(), TEXT, ids("sil DH AH0 P EH1 R sil"))
    with pytest.raises(SlmError, match="are not those of"):
        numbered(Phonemes(), "The", ids("DH AH0 AE1"))


def test_rows_are_those_of_the_data_wherever_they_are_cut():
    draw = torch.Generator().manual_seed(0)
    items, words = [], {}
    for i in range(6):
        duration = torch.randint(1, 6, (30,), generator=draw)
        codes = torch.randint(16, (2, int(duration.sum())), generator=draw)
        items.append(Utterance(str(i), str(i % 2), torch.randint(40, (30,), generator=draw), duration, codes))
        words[str(i)] = torch.arange(30) // 4
    spoken = Utterances(items, torch.randn(2, 16, 3), 400, prompt=(5, 9), longest=40)
    rows = WordedRows(spoken, words, 40)
    for step in range(4):
        one, other = rows.at(step), spoken.at(step)
        assert all(torch.equal(a, b) for name in other for a, b in zip(one[name], other[name], strict=True))
        for text, told in zip(one["text"], one["words"], strict=True):
            assert told.sum() == len(text) and (told[1:-1] == 4).all() and told.max() <= 4, "cut between two phones, perhaps within a word"


@pytest.mark.parametrize("of", [MadeUpUtterances(), Short(MadeUpUtterances(), longest=20, frames=200)])
def test_made_up_words_have_two_phones(of):
    built = {"text": Phonemes(), "acoustic": tiny().build()}
    batch = Worded(of).build(built).at(0)
    assert all(words.sum() == len(text) and words.max() <= 2 for text, words in zip(batch["text"], batch["words"]))
