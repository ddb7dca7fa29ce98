"""Text tokenizers: what English says aloud, for any string whatever."""

import os
import random
import time
from collections import Counter
from pathlib import Path

import pytest
import torch

from slm.config import from_dict, to_dict
from slm.errors import SlmError
from slm_tokenizers.text import guess
from slm_tokenizers.text.bytes import Bytes
from slm_tokenizers.text.normalise import PAUSES, normalise
from slm_tokenizers.text.phonemes import SYMBOLS, Phonemes, dictionary, source
from slm_tokenizers.text.split import pieces

SHARED = Path(os.environ.get("SLM_SHARED", Path(__file__).parents[1] / "../shared/data"))

SPOKEN = {
    "Dr. Smith paid $3.50 -- twice!": "doctor smith paid three dollars and fifty cents , twice !",
    "Mr. and Mrs. Jones, St. Paul's, 22 Baker St. today": "mister and missus jones , saint paul's , twenty two baker street today",
    "On May 5, 1984 at 3:05 p.m. in": "on may fifth , nineteen eighty four at three oh five p. m. in",
    "3:00 p.m. The end, 5 a.m. or 6PM": "three p. m. . the end , five a. m. or six p. m.",
    "5 May 2020, Jan. 3rd and 2024-05-17": "the fifth of may twenty twenty , january third and may seventeenth , twenty twenty four",
    "1905, 1066, 2000, 2500, 1,984": "nineteen oh five , ten sixty six , two thousand , two thousand five hundred , "
    "one thousand nine hundred and eighty four",
    "the 1960s, the '80s": "the nineteen sixties , the eighties",
    "21st, 2nd and 1,000th": "twenty first , second and one thousandth",
    "3.14 and .5 and -5": "three point one four and point five and minus five",
    "50% of 1/2, 3½ and 9/11": "fifty percent of one half , three and one half and nine eleven",
    "007 1234567890123456": "zero zero seven one two three four five six seven eight nine zero one two three four five six",
    "£2.50, €1, $0.99, $3 million": "two pounds and fifty pence , one euro , ninety nine cents , three million dollars",
    "1914-1918, pages 3–5, 3:00, 14:30": "nineteen fourteen to nineteen eighteen , pages three to five , three o'clock , fourteen thirty",
    "5kg, 60 mph, 20 °C": "five kilograms , sixty miles per hour , twenty degrees celsius",
    "the FBI, the US and NATO's UCLA": "the fbi , the u. s. and nato's u. c. l. a.",
    "U.S. Army, e.g. J. F. Kennedy, Ph.D., etc.": "u. s. army , for example j. f. kennedy , p. h. d. , et cetera .",
    "Henry VIII, chapter IV, World War II": "henry the eighth , chapter four , world war two",
    "A & B @ C + D = E": "a and b at c plus d equals e",
    "https://www.example.com/a-b?x=1, bob@site.org.": "w. w. w. dot example dot com slash a dash b x equals one , bob at site dot org .",
    "“Naïve” café—Straße… ﬁne": "naive cafe , strasse . fine",
    "self-destruction (a joke) - ok": "self destruction , a joke , ok",
    "He said: \"no\"; 'tis rock 'n' roll": "he said : no ; 'tis rock and roll",
    "Call (555) 123-4567": "call five five five , one two three , four five six seven",
    "DO IT NOW, said the IT man. IT'S A TRAP": "do it now , said the i. t. man . it's a trap",
    "COVID-19, MP3, A4": "covid nineteen , m. p. three , a. four",
    "we chose plan B. The end": "we chose plan b . the end",
    "one\ntwo\n\nthree": "one two . three",
    "𝐇𝐞𝐥𝐥𝐨 ！ 5️⃣": "hello ! five",
}


@pytest.fixture(scope="module")
def phonemes() -> Phonemes:
    return Phonemes.Config().build()


@pytest.mark.parametrize("written", SPOKEN)
def test_written_english_becomes_the_words_a_reader_says(written):
    assert normalise(written, known=dictionary().__contains__) == SPOKEN[written]


def test_symbols_are_sil_24_consonants_and_15_vowels_with_two_stresses():
    assert Phonemes.card == len(SYMBOLS) == len(set(SYMBOLS)) == 1 + 24 + 15 * 2
    assert (SYMBOLS[0], SYMBOLS[1], SYMBOLS[24], SYMBOLS[25], SYMBOLS[-1], Phonemes.n_q) == ("sil", "B", "ZH", "AA0", "UW1", 1)
    # ids are stored in checkpoints, so the order never changes
    assert Phonemes().encode("Hello, world.").tolist() == [SYMBOLS.index(s) for s in "sil HH AH0 L OW1 sil W ER1 L D sil".split()]


def test_every_pronunciation_of_the_dictionary_is_made_of_symbols():
    phones = {p for entry in dictionary().values() for p in entry.partition("#")[0].replace("2", "1").split()}
    assert phones <= set(SYMBOLS) and len(dictionary()) > 120_000


@pytest.mark.parametrize(
    "text, spoken",
    {
        "the apple, the dog, a cat": "DH IY0 AE1 P AH0 L sil DH AH0 D AO1 G sil AH0 K AE1 T",
        "an FBI agent": "AE1 N EH1 F B IY1 AY1 EY1 JH AH0 N T",
        "rifle's gasses moss's": "R AY1 F AH0 L Z G AE1 S IH0 Z M AO1 S IH0 Z",
        "blanched cradled gazetted": "B L AE1 N CH T K R EY1 D AH0 L D G AH0 Z EH1 T IH0 D",
        "conniving thistlewood": "K AH0 N AY1 V IH0 NG TH IH1 S AH0 L W UH0 D",
        "shoestore flintshire": "SH UW1 S T AO0 R F L IH1 N T SH ER0",
        "xkcd": "EH1 K S K EY1 S IY1 D IY1",
    }.items(),
)
def test_words_are_read_from_the_dictionary_or_built_from_its_words(phonemes, text, spoken):
    assert phonemes.decode(phonemes.encode(text)) == f"sil {spoken} sil"


def test_unknown_words_are_guessed_by_the_model_and_names_of_other_tongues_by_rule():
    assert source("penitence") == ("model", tuple("P EH1 N IH0 T AH0 N S".split()))
    assert source("nabonidus")[0] == "rules"
    assert guess.from_rules("brishcap") == "B R IH1 SH K AE0 P".split()


def test_without_the_model_every_word_is_still_read(monkeypatch):
    monkeypatch.setattr(guess, "_model", lambda: None)
    source.cache_clear()
    try:
        assert source("penitence")[0] == "rules" and source("penitence")[1]
    finally:
        source.cache_clear()


def test_one_sil_at_each_end_and_at_each_pause_never_two(phonemes):
    ids = phonemes.encode("... well (yes, well)?! — no; no: … end --- ")
    assert ids.dtype == torch.long and ids[0] == ids[-1] == 0
    assert not ((ids[1:] == 0) & (ids[:-1] == 0)).any()
    assert [word for word, _ in phonemes.words("(yes, well)?! no")] == ["", "yes", "", "well", "", "no", ""]
    assert phonemes.phones("yes!") == [["sil"], ["Y", "EH1", "S"], ["sil"]]


@pytest.mark.parametrize("text", ["", "   \n", "😀🎉", "...", "你好 привет", "'", "\x00\x01", "()[]"])
def test_a_text_with_nothing_to_speak_is_a_user_error(phonemes, text):
    with pytest.raises(SlmError, match="holds nothing to speak"):
        phonemes.encode(text)


def test_a_caller_may_change_the_answer_without_harm(phonemes):
    phonemes.words("the penitence")[2][1].clear()
    assert phonemes.words("the penitence")[2][1]


def test_any_string_is_spoken_or_refused_and_always_the_same_way(phonemes):
    rng = random.Random(0)
    bits = [*"aBé123.,'- $%/:@😀½你°", "\n", "\ud800", "\x01", "St. ", "Mr. ", "IV ", "th", "A.", "'s", "23"]
    for _ in range(400):
        text = "".join(rng.choices(bits, k=rng.randrange(1, 30)))
        try:
            words = phonemes.words(text)
        except SlmError:
            continue
        assert all(phones and set(phones) <= set(SYMBOLS) for _, phones in words), text
        assert words == phonemes.words(text)


BITS = ["a", "1", "1.", "1-", "a.", "A ", "a'", "ly", "x@", "1,", "$1", "http://", "XVI ", "1/", "1:", "St. ", "(5", "May 5 ", "a-b."]


@pytest.mark.parametrize("bit", BITS)
def test_time_grows_with_length_and_not_with_its_square(phonemes, bit):
    start = time.process_time()
    phonemes.encode(bit * (8000 // len(bit)))
    assert time.process_time() - start < 3


def test_the_dictionary_loads_in_well_under_a_second():
    def load() -> float:
        dictionary.cache_clear()
        start = time.process_time()
        dictionary()
        return time.process_time() - start

    assert min(load() for _ in range(3)) < 0.6


def test_ids_out_of_range_are_user_errors(phonemes):
    for tokenizer, wrong in ((phonemes, phonemes.card), (phonemes, -1), (Bytes(), 256), (Bytes(), -1)):
        with pytest.raises(SlmError, match=str(wrong)):
            tokenizer.decode(torch.tensor([0, wrong]))


def test_bytes_round_trip_exactly():
    rng, tokenizer = random.Random(0), Bytes.Config().build()
    assert tokenizer.encode("hé").tolist() == [0x68, 0xC3, 0xA9] and tokenizer.encode("").shape == (0,)
    for _ in range(300):
        text = "".join(chr(rng.choice((rng.randrange(128), rng.randrange(0x110000)))) for _ in range(rng.randrange(40)))
        ids = tokenizer.encode(text)
        assert ids.dtype == torch.long and tokenizer.decode(ids) == text


def test_bytes_a_model_makes_up_are_decoded_without_an_error():
    assert Bytes().decode(torch.tensor([0x68, 0xFF, 0x69])) == "h\ufffdi"


def test_configs_survive_json():
    for config in (Phonemes.Config(), Bytes.Config()):
        assert from_dict(to_dict(config)) == config and from_dict(to_dict(config)).build().n_q == 1


STORY = (
    "Mr. Smith met Dr. J. Brown at 3:15 p.m. on May 5, 1984. He paid $1,234.50 for the U.S. Army's old clock; it was broken, "
    'of course (as ever). "Why?" she asked. Nobody knew! The rest of this sentence runs on and on without a comma '
    "until it has passed every sensible limit that a reader of long sentences could possibly have set for it in advance 😀.\n\n"
)


def words_of(text: str) -> list[str]:
    return [token for token in normalise(text).split() if token not in PAUSES]


@pytest.mark.parametrize("limit", [60, 100, 200])
def test_pieces_keep_to_the_limit_and_lose_no_word(limit):
    text = STORY * 20
    cut = pieces(text, limit)
    assert max(map(len, cut)) <= limit
    assert [word for piece in cut for word in words_of(piece)] == words_of(text)


def test_pieces_end_at_sentences_then_commas_then_spaces():
    assert pieces("One two. Three four. Five.", 20) == ["One two. Three four.", "Five."]
    assert pieces("One two three, four five six seven", 20) == ["One two three,", "four five six seven"]
    assert pieces("One two three four five six", 14) == ["One two three", "four five six"]
    assert pieces("aaa bbbbb c", 8) == ["aaa", "bbbbb c"]
    assert pieces("He met Dr. Brown there. Yes.", 24) == ["He met Dr. Brown there.", "Yes."]
    assert pieces("a" * 25, 10) == ["a" * 10, "a" * 10, "a" * 5]
    assert pieces("One two\n\nthree four five", 20) == ["One two", "three four five"]
    assert pieces("Short.") == ["Short."]
    with pytest.raises(SlmError, match="limit is 0"):
        pieces("Short.", 0)


def test_pieces_with_nothing_to_speak_are_left_out():
    assert pieces(" 😀 ") == [] and pieces("") == []
    assert pieces("Hello there. 😀😀😀😀😀😀😀😀😀😀 Bye.", 13) == ["Hello there.", "Bye."]


def test_nearly_every_word_of_real_text_is_known(phonemes):
    path = SHARED / "texts/ljspeech.txt"
    if not path.exists():
        pytest.skip(f"no {path}: set SLM_SHARED to the folder that holds texts/ljspeech.txt")
    lines = path.read_text(encoding="utf-8").splitlines()[:12000:6]
    count = Counter(source(word)[0] for line in lines for word, _ in phonemes.words(line) if word)
    assert count.total() > 20_000 and (count["model"] + count["rules"]) / count.total() < 0.02
