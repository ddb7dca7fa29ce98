"""Pronunciations of words that the dictionary lacks: endings, compounds, spelling, a small model, letter-to-sound rules.

Every function takes a lower-case word of a-z and apostrophes and returns ARPAbet phones with stress 0 or 1, or None.
`lookup` is the dictionary: word -> phones or None.
"""

import functools
import re
from collections.abc import Callable
from types import SimpleNamespace

Lookup = Callable[[str], list[str] | None]

VOWELS = frozenset("AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW".split())
VOICELESS = frozenset("P T K F TH".split())
SIBILANT = frozenset("S Z SH ZH CH JH".split())
NAMES = {
    "a": "EY1", "b": "B IY1", "c": "S IY1", "d": "D IY1", "e": "IY1", "f": "EH1 F", "g": "JH IY1", "h": "EY1 CH", "i": "AY1", "j": "JH EY1",
    "k": "K EY1", "l": "EH1 L", "m": "EH1 M", "n": "EH1 N", "o": "OW1", "p": "P IY1", "q": "K Y UW1", "r": "AA1 R", "s": "EH1 S",
    "t": "T IY1", "u": "Y UW1", "v": "V IY1", "w": "D AH1 B AH0 L Y UW0", "x": "EH1 K S", "y": "W AY1", "z": "Z IY1",
}  # fmt: skip
# the sounds of English in IPA; length, stress and tie marks are dropped before the match
IPA = {
    "dʒ": "JH", "tʃ": "CH", "aɪ": "AY", "aʊ": "AW", "eɪ": "EY", "oʊ": "OW", "əʊ": "OW", "ɔɪ": "OY",
    "ɑ": "AA", "æ": "AE", "ʌ": "AH", "ə": "AH", "ɐ": "AH", "ɔ": "AO", "ɒ": "AA", "ɛ": "EH", "e": "EY", "ɝ": "ER", "ɚ": "ER",
    "ɜ": "ER", "ɪ": "IH", "i": "IY", "ʊ": "UH", "u": "UW", "b": "B", "d": "D", "ð": "DH", "f": "F", "ɡ": "G", "g": "G", "h": "HH",
    "j": "Y", "k": "K", "l": "L", "ɫ": "L", "m": "M", "n": "N", "ŋ": "NG", "p": "P", "ɹ": "R", "r": "R", "s": "S", "ʃ": "SH",
    "t": "T", "θ": "TH", "v": "V", "w": "W", "z": "Z", "ʒ": "ZH",
}  # fmt: skip
IPA_PATTERN = re.compile("|".join(sorted(IPA, key=len, reverse=True)))
# letters to sounds, first match wins at each place: (pattern, phones)
RULES = tuple(
    (re.compile(pattern), phones.split())
    for pattern, phones in (
        ("(?<=[bcdfgkptz])le$", "AH L"), ("able$", "AH B AH L"), ("ous$|us$", "AH S"), ("(?<=..)es$", "IH Z"), ("(?<=[bdglmnrvw])s$", "Z"),
        ("^ct", "T"), ("i(?=[aou])", "IY"), ("(?<=.)e$", ""),
        ("tch", "CH"), ("sch", "SH"), ("ch", "CH"), ("ck", "K"), ("sh", "SH"), ("ph", "F"), ("th", "TH"), ("^kn", "N"),
        ("^wr", "R"), ("^gn", "N"), ("wh", "W"), ("tion", "SH AH N"), ("sion", "ZH AH N"), ("qu", "K W"), ("igh", "AY"), ("eigh", "EY"),
        ("augh", "AO"), ("ough", "OW"), ("gh", "G"), ("ng$", "NG"), ("nk", "NG K"), ("dge", "JH"), ("^x", "Z"), ("x", "K S"),
        ("c(?=[eiy])", "S"), ("cc(?![eiy])|c", "K"), ("g(?=[ey])", "JH"), ("gg|g", "G"), ("bb|b", "B"), ("dd|d", "D"), ("ff|f", "F"),
        ("(?<=[aeou])h(?![aeiouy])", ""), ("hh|h", "HH"), ("jj|j", "JH"), ("kk|k", "K"), ("ll|l", "L"), ("mm|m", "M"), ("nn|n", "N"),
        ("pp|p", "P"), ("qq|q", "K"), ("er(?![aeiouy])|ir(?![aeiouy])|ur(?![aeiouy])", "ER"), ("rr|r", "R"), ("ss|s", "S"), ("tt|t", "T"),
        ("vv|v", "V"), ("ww|w(?=[aeiouy])", "W"), ("zz|z", "Z"), ("^y(?=[aeiou])", "Y"), ("ai|ay|ei|ey", "EY"), ("au|aw", "AO"),
        ("ee|ea|ie|ae|oe", "IY"), ("oo|ou|eu|ue|ui", "UW"), ("ew", "Y UW"), ("oi|oy", "OY"), ("oa", "OW"), ("ow", "OW"), ("w", "W"),
        ("a(?=[^aeiouyw]e$)", "EY"), ("i(?=[^aeiouyw]e$)", "AY"), ("o(?=[^aeiouyw]e$)", "OW"), ("u(?=[^aeiouyw]e$)", "UW"),
        ("(?<=.)a$", "AH"), ("aa", "AA"), ("a(?=r)", "AA"), ("a", "AE"), ("e", "EH"), ("(?<=.)i$", "IY"), ("ii|i", "IH"), ("o(?=r)", "AO"),
        ("(?<=.)o$", "OW"), ("o", "AA"), ("(?<=.)u$", "UW"), ("uu|u", "AH"), ("(?<=.)y$", "IY"), ("yy|y", "IH"),
    )
)  # fmt: skip
# second parts of compounds and of place names, worn down by use
SECONDS = {
    "man": "M AH0 N", "men": "M IH0 N", "way": "W EY0", "ways": "W EY0 Z", "day": "D EY0", "days": "D EY0 Z", "son": "S AH0 N",
    "ton": "T AH0 N", "ham": "AH0 M", "ford": "F ER0 D", "land": "L AH0 N D", "lands": "L AH0 N D Z", "shire": "SH ER0",
    "worth": "W ER0 TH", "bury": "B EH0 R IY0", "borough": "B ER0 OW0", "burgh": "B ER0 G", "sea": "S IY0", "box": "B AA0 K S",
    "bed": "B EH0 D", "cup": "K AH0 P", "top": "T AA0 P", "out": "AW0 T", "off": "AO0 F", "cap": "K AE0 P", "boy": "B OY0",
    "dog": "D AO0 G", "cut": "K AH0 T", "cuts": "K AH0 T S", "red": "R EH0 D", "eye": "AY0", "hat": "HH AE0 T", "pot": "P AA0 T",
    "pit": "P IH0 T", "bag": "B AE0 G", "gun": "G AH0 N", "tub": "T AH0 B",
}  # fmt: skip


def is_vowel(phone: str) -> bool:
    return phone.rstrip("012") in VOWELS


def spell(word: str) -> list[str]:
    """The names of the letters of `word`."""
    return [phone for letter in word if letter in NAMES for phone in NAMES[letter].split()]


def plural(stem: list[str]) -> list[str]:
    """With the s of a plural or a possessive."""
    return stem + (["IH0", "Z"] if stem[-1] in SIBILANT else ["S"] if stem[-1] in VOICELESS else ["Z"])


def past(stem: list[str]) -> list[str]:
    """With the d of a past."""
    voiceless = stem[-1] in VOICELESS or stem[-1] in ("S", "SH", "CH")
    return stem + (["IH0", "D"] if stem[-1] in ("T", "D") else ["T"] if voiceless else ["D"])


def _stems(word: str, ending: str) -> list[str]:
    """What `word` may be without `ending`: as it stands, with a lost e, with y for i, with a doubled letter undone."""
    stem = word[: -len(ending)]
    if len(stem) < 2 or "'" in ending:
        return [stem]
    if ending[0] not in "eia":
        return [stem] + [stem[:-1] + "y"] * (stem[-1] == "i") if stem[-1] != "s" or ending != "s" else []
    if stem[-1] == stem[-2]:
        return [stem, stem[:-1], stem + "e"]
    # "hop" + "ing" would have doubled its p, so "hoping" is "hope"
    single = stem[-1] not in "aeiouwxy" and stem[-2] in "aeiou" and stem[-3:-2] not in list("aeiou")
    return ([stem + "e", stem] if single else [stem, stem + "e"]) + [stem[:-1] + "y"] * (stem[-1] == "i")


ENDINGS = (
    ("'s", plural), ("es", plural), ("s", plural), ("ed", past), ("'d", past),
    ("ing", lambda p: [*p, "IH0", "NG"]), ("in'", lambda p: [*p, "IH0", "N"]), ("er", lambda p: [*p, "ER0"]),
    ("est", lambda p: [*p, "AH0", "S", "T"]), ("ly", lambda p: [*p, "L", "IY0"]), ("ness", lambda p: [*p, "N", "AH0", "S"]),
    ("less", lambda p: [*p, "L", "AH0", "S"]), ("ful", lambda p: [*p, "F", "AH0", "L"]), ("ish", lambda p: [*p, "IH0", "SH"]),
    ("able", lambda p: [*p, "AH0", "B", "AH0", "L"]), ("ment", lambda p: [*p, "M", "AH0", "N", "T"]),
    ("ally", lambda p: [*p, "L", "IY0"]), ("'ll", lambda p: [*p, "AH0", "L"]), ("'ve", lambda p: [*p, "AH0", "V"]),
    ("'re", lambda p: [*p, "ER0"]), ("n't", lambda p: [*p, "AH0", "N", "T"]),
)  # fmt: skip
PREFIXES = {
    "un": "AH0 N", "re": "R IY0", "non": "N AA0 N", "pre": "P R IY0", "mis": "M IH0 S", "over": "OW0 V ER0", "under": "AH0 N D ER0",
    "out": "AW0 T", "inter": "IH0 N T ER0", "super": "S UW0 P ER0", "anti": "AE0 N T IY0", "dis": "D IH0 S", "counter": "K AW0 N T ER0",
}  # fmt: skip


def from_ending(word: str, lookup: Lookup) -> list[str] | None:
    """Possessives, plurals, -ed, -ing, -er, -ly and their like on a known word, or on a word that has such an ending itself."""
    for ending, join in ENDINGS:
        if word.endswith(ending) and len(word) > len(ending):
            for stem in _stems(word, ending):
                phones = lookup(stem) or (from_ending(stem, lookup) if 3 < len(stem) < len(word) else None)
                if phones:
                    return join(list(phones))
    return None


def _halves(first: str, second: str, lookup: Lookup) -> list[str] | None:
    """The phones of two known words said as one, the second unstressed; short seconds only where they are common."""
    head = lookup(first)
    if not head or not any(map(is_vowel, head)):
        return None
    if second in SECONDS:
        return head + SECONDS[second].split()
    tail = lookup(second) if len(second) > 3 else None
    tail = tail or (from_ending(second, lookup) if len(first) > 3 and len(second) > 5 else None)
    return head + [p.replace("1", "0") for p in tail] if tail else None


def from_parts(word: str, lookup: Lookup) -> list[str] | None:
    """A prefix and a known word, or two known words (the longest first part of three letters or more)."""
    for prefix, phones in PREFIXES.items():
        rest = word[len(prefix) :]
        known = (lookup(rest) or from_ending(rest, lookup)) if word.startswith(prefix) and len(rest) > 3 else None
        if known:
            return phones.split() + known
    for cut in range(len(word) - 3, 2, -1):
        if phones := _halves(word[:cut], word[cut:], lookup):
            # "shoestore" is shoe and store, not shoes and tore
            return (word[cut - 1] == "s" and cut > 3 and _halves(word[: cut - 1], word[cut - 1 :], lookup)) or phones
    return None


def stressed(phones: list[str]) -> list[str]:
    """Bare phones with stress 1 on the first vowel and 0 on the others."""
    out, given = [], False
    for phone in phones:
        out.append(f"{phone}{0 if given else 1}" if phone in VOWELS else phone)
        given = given or phone in VOWELS
    return out


@functools.cache
def _model():
    try:
        from hama import G2PModel

        model = G2PModel()
        vocab = model.vocab  # whose tables are built anew at every look: 18 times a word, most of the model's time
        tables = ("encoder", "decoder", "encoder_token_to_id", "decoder_token_to_id", "pad_id", "sos_id", "eos_id")
        model.vocab = model.tokenizer.vocab = SimpleNamespace(**{name: getattr(vocab, name) for name in tables})
        return model
    except Exception:  # a platform without the package or its engine still reads every word by rule
        return None


def from_model(word: str) -> list[str] | None:
    """The word as the g2p model of the package `hama` says it; None where the model is missing or says nothing credible.

    The model reads many languages and takes some English words and most names for another's; its sounds then tell, and they
    stand apart ("n a β̞ u"). Such a word is left to the rules.
    """
    model = _model()
    if model is None:
        return None
    try:
        ipa = re.sub("[ːˈˌ͡]", "", model.predict(word).ipa)
    except Exception:  # the model is a native engine that is not made for every string
        return None
    sounds = IPA_PATTERN.findall(ipa)
    phones = [p for sound in sounds for p in IPA[sound].split()]
    credible = "".join(sounds) == ipa and len(word) <= 3 * len(phones) and any(p in VOWELS for p in phones)
    return stressed(phones) if credible else None


def from_rules(word: str) -> list[str]:
    """Letter-to-sound rules; a word of letters is never empty."""
    phones, at, word = [], 0, word.replace("'", "")
    while at < len(word):
        hits = ((pattern.match(word, at), sounds) for pattern, sounds in RULES)
        hit, sounds = next(((m, s) for m, s in hits if m), (None, []))
        phones += sounds
        at = hit.end() if hit else at + 1
    return stressed(phones) if any(p in VOWELS for p in phones) else spell(word)
