"""English text to plain lower-case words and pause marks.

`normalise("Dr. Smith paid $3.50 -- twice!")` -> "doctor smith paid three dollars and fifty cents , twice !".
The result is words and the pause marks , . ; : ? ! set apart by single spaces, one mark at a time and none at the start.
A letter that is to be named has a dot after it ("u. s." is said "you ess", "a." is said "ay"). What cannot be spoken (emoji,
other scripts) is dropped. Each step works on the whole text and leaves to the later ones what it does not know.
"""

import re
import unicodedata
from collections.abc import Callable

from slm_tokenizers.text.numbers import NAMED, cardinal, numbers, ordinal

PAUSES = frozenset(",.;:?!")
FOLDED = {
    "’": "'", "‘": "'", "‛": "'", "ʼ": "'", "`": "'", "´": "'", "′": "'", "“": " ", "”": " ", "„": " ", "«": " ", "»": " ", '"': " ",
    "″": " ", "…": ". ", "—": ", ", "―": ", ", "‒": "-", "‐": "-", "‑": "-", "−": "-", "¿": " ", "¡": " ", "‽": "?", "⁄": "/",
    "ß": "ss", "ẞ": "SS", "æ": "ae", "Æ": "Ae", "œ": "oe", "Œ": "Oe", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "đ": "d", "Đ": "D",
    "ð": "th", "Ð": "Th", "þ": "th", "Þ": "Th", "ı": "i", "。": ". ", "、": ", ", "×": " times ", "÷": " divided by ", "§": " section ",
    "±": " plus or minus ", "²": " squared ", "³": " cubed ", "™": " ", "№": " number ", "•": ", ", "·": " ",
    "(": ", ", ")": ", ", "[": ", ", "]": ", ", "{": ", ", "}": ", ",
}  # fmt: skip
KEPT = "–£€¥₹°\n"
SYMBOLS = {
    "&": " and ", "@": " at ", "+": " plus ", "=": " equals ", "%": " percent ", "°": " degrees ", "$": " dollars ", "£": " pounds ",
    "€": " euros ", "¥": " yen ", "₹": " rupees ", "–": ", ",
}  # fmt: skip
TITLES = {
    "mr": "mister", "mrs": "missus", "ms": "ms", "messrs": "messers", "dr": "doctor", "prof": "professor", "rev": "reverend",
    "hon": "honorable", "capt": "captain", "col": "colonel", "gen": "general", "lt": "lieutenant", "sgt": "sergeant", "maj": "major",
    "gov": "governor", "sen": "senator", "rep": "representative", "pres": "president", "supt": "superintendent", "mt": "mount",
    "ft": "fort",
}  # fmt: skip
NUMBERED = {
    "fig": "figure", "figs": "figures", "sec": "section", "ch": "chapter", "chap": "chapter", "vol": "volume", "pp": "pages",
    "est": "established",
}  # fmt: skip
SHORTENED = {
    "jr": "junior", "sr": "senior", "esq": "esquire", "bros": "brothers", "co": "company", "corp": "corporation", "ltd": "limited",
    "inc": "incorporated", "dept": "department", "assn": "association", "univ": "university", "ave": "avenue", "blvd": "boulevard",
    "rd": "road", "vs": "versus", "etc": "et cetera", "approx": "approximately", "misc": "miscellaneous", "viz": "namely", "cf": "compare",
    "jan": "january", "feb": "february", "aug": "august", "sept": "september", "oct": "october", "nov": "november", "dec": "december",
}  # fmt: skip
CLIPPED = frozenset(("'tis", "'twas", "'twere", "'twill", "'em", "'til", "'cause", "'bout", "'round"))
# words that are known and yet are spelled when they stand in capitals among small letters
SPELLED = frozenset("US UN ID IT LA AI AD VIP IRA MA PA".split())
# with a capital after a dot these begin a sentence: the dot was not an initial's alone
STARTERS = (
    "(?:" + "|".join("The A An He She It We They You I But And In On At So If As For This That These Those There Then When What".split())
    + r"|His|Her|My|Our|No|Not|Now|One)\b"
)  # fmt: skip
COUNTED = frozenset("chapter part section volume book act scene war phase type article title appendix table figure class".split())
MONARCHS = frozenset("henry george edward charles james william louis elizabeth mary richard napoleon francis philip pius leo".split())
DOMAIN = r"(?:com|org|net|edu|gov|mil|info|io|co|uk|de|fr|ai|dev|app)"
URL = re.compile(
    rf"\b(?:(?:https?|ftp)://|www\.)[^\s<>]+|\b[\w.+-]{{1,64}}@[\w-]{{1,64}}(?:\.[\w-]{{1,64}}){{1,8}}"
    rf"|\b[\w-]{{1,64}}(?:\.[\w-]{{1,64}}){{0,8}}?\.{DOMAIN}\b(?:/[^\s<>]*)?",
    re.IGNORECASE,
)
ROMAN = re.compile(r"\b([A-Z][a-z]+|" + "|".join(COUNTED) + r") (?=[XVI])(X{0,3}(?:IX|IV|V?I{0,3}))(?![A-Za-z]|\.\w)")
AFTER_URL = (("/", " slash "), ("@", " at "), ("-", " dash "), ("_", " underscore "), ("?", " "), ("#", " "), (":", " "), ("&", " and "))


def letters(run: str) -> str:
    """FBI -> " f b i ", each letter marked as one that is named."""
    return " " + " ".join(f"{c}{NAMED}" for c in run.lower() if "a" <= c <= "z") + " "


def fold(text: str) -> str:
    """Unicode to ASCII where English has a spelling for it: quotes, dashes, accents, ligatures, wide forms; the rest becomes a space."""
    if not text.isascii():
        text = re.sub(r"(?<=\d)(?=[¼-¾⅐-⅞])", " ", text)
    out = []
    for char in unicodedata.normalize("NFKC", "".join(FOLDED.get(c, c) for c in text)):
        for c in unicodedata.normalize("NFD", FOLDED.get(char, char)):
            if " " <= c < "\x7f" or c in KEPT:
                out.append(c)
            elif unicodedata.category(c) not in ("Mn", "Cf"):
                out.append(" ")
    return "".join(out)


def _address(m: re.Match) -> str:
    said = re.sub(r"^(?:https?|ftp)://", "", m[0], flags=re.IGNORECASE)
    body = said.rstrip(".,;:?!)'/")
    tail = said[len(body) :].replace("/", "")
    body = re.sub(r"^www\.", letters("www") + "dot ", body, flags=re.IGNORECASE)
    body = re.sub(r"\.(?=\S)", " dot ", body)
    for mark, name in AFTER_URL:
        body = body.replace(mark, name)
    return f" {body}{tail} "


def _pause(m: re.Match) -> str:
    """The dot of an abbreviation is also a full stop at the end and before a word that begins a sentence."""
    return " . " if re.match(rf"\s*$|\s+{STARTERS}", m.string[m.end() : m.end() + 12]) else " "


def _saint(m: re.Match) -> str:
    """St. before a capital is a saint, unless a house number and a name come before it."""
    return " street " if re.search(r"\d\w*(?: [A-Z]\w*)+ $", m.string[max(0, m.start() - 40) : m.start()]) else " saint "


def _initial(m: re.Match) -> str:
    """A capital and a dot is a letter in "by J. Smith", and the end of a sentence in "we chose plan B. Later"."""
    before = m.string[max(0, m.start() - 20) : m.start()]
    named = re.search(r"(?:^|[.,;:]|\b(?:[A-Z]\S*|by|to|of|and|or|from|with|for|as|that|when))\s*$", before)
    return letters(m[1]) if named or re.match(r" [A-Z]\.", m.string[m.end() : m.end() + 3]) else m[0]


def abbreviations(text: str) -> str:
    """Titles, Latin and business abbreviations, initials and dotted acronyms, spelled out. Needs single spaces."""
    text = re.sub(r"\be\.\s?g\.", " for example ", text, flags=re.IGNORECASE)
    text = re.sub(r"\bi\.\s?e\.", " that is ", text, flags=re.IGNORECASE)
    text = re.sub(r"(?<=\d) ?([AaPp])\. ?[Mm]\.", lambda m: f" {m[1]}m" + _pause(m), text)
    text = re.sub(r"\bph\.\s?d\b\.?", letters("phd"), text, flags=re.IGNORECASE)
    text = re.sub(r"\bNos?\. ?(?=\d)|#(?=\d)", " number ", text)
    text = re.sub(r"\bp\. ?(?=\d)", " page ", text)
    text = re.sub(r"\bSt\. ?(?=[A-Z])", _saint, text)
    text = re.sub(r"\bSt\.", " street ", text)
    text = re.sub(r"(?<=[a-z] )Dr\.(?! ?[A-Z])", " drive ", text)
    text = re.sub(rf"\b((?i:{'|'.join(TITLES)}))\. ?(?=[A-Z])", lambda m: f" {TITLES[m[1].lower()].title()} ", text)
    text = re.sub(rf"\b((?i:{'|'.join(NUMBERED)}))\. ?(?=[\dIVX])", lambda m: f" {NUMBERED[m[1].lower()]} ", text)
    text = re.sub(rf"\b({'|'.join(SHORTENED)})\.", lambda m: f" {SHORTENED[m[1].lower()]}" + _pause(m), text, flags=re.IGNORECASE)
    text = re.sub(r"\b(Mr|Mrs|Messrs|Dr(?!\.))\b\.?", lambda m: TITLES[m[1].lower()].title(), text)
    text = re.sub(r"\b[A-Za-z]\.(?:[A-Za-z]\.)+(?![A-Za-z]{2})", lambda m: letters(m[0]) + _pause(m), text)
    return re.sub(rf"\b([A-HJ-Z]|I(?=\. [A-Z]\.))\.(?= [A-Z])(?! {STARTERS})", _initial, text)


def _roman(m: re.Match) -> str:
    before, value = m[1].lower(), sum({"I": 1, "V": 5, "X": 10}[c] for c in m[2]) - 2 * (("IX" in m[2]) + ("IV" in m[2]))
    if before in COUNTED:
        return f"{m[1]} {cardinal(str(value))}"
    if len(m[2]) > 1 or (before in MONARCHS and (m[2] != "I" or re.match(r"[,.;:?!)]| of\b|$", m.string[m.end() : m.end() + 4]))):
        return f"{m[1]} the {ordinal(str(value))}"
    return m[0]


def acronyms(text: str, known: Callable[[str], bool]) -> str:
    """Runs of 2 to 5 capitals are spelled by letters, unless they are a known word, look like one, or stand among other capitals."""

    def spell(m: re.Match) -> str:
        word, before, after = m[1], m.string[max(0, m.start() - 12) : m.start()], m.string[m.end() : m.end() + 12]
        shouted = re.search(r"\b(?:A|[A-Z]{2,}) $", before) or re.match(r" (?:A|[A-Z]{2,})\b", after)
        wordlike = len(word) > 3 and (shouted or re.fullmatch("[^AEIOUY]?(?:[AEIOUY][^AEIOUY])+[AEIOUY]?", word))
        if (wordlike or known(word.lower())) and (shouted or word not in SPELLED):
            return m[0]
        return letters(word).rstrip() + ("'s" if m[2] else "") + " "

    text = re.sub(r"\b[A-Z]{1,3}-?(?=\d)", lambda m: letters(m[0]), text)
    text = re.sub(r"(?<=[a-z] )A(?= ?[,.;:?!]|$)", letters("a"), text)
    return re.sub(r"(?<!')\b([A-Z]{2,5})(?:('?s)\b|\b(?!'))", spell, text)


def _word(token: str) -> str:
    if NAMED in token:
        return token.replace(NAMED, ".")
    if token == "'n'":
        return "and"
    return token if token in CLIPPED or re.fullmatch(r"[a-z]+in'", token) else token.strip("'")


def _tidy(tokens: list[str]) -> list[str]:
    """One pause mark at a time (the first that is more than a comma) and none at the start."""
    out: list[str] = []
    for token in tokens:
        if token not in PAUSES or (out and out[-1] not in PAUSES):
            out.append(token)
        elif out and out[-1] == ",":
            out[-1] = token
    return out


def normalise(text: str, known: Callable[[str], bool] = lambda word: False) -> str:
    """Plain lower-case words and pause marks of `text`, set apart by single spaces; "" when nothing can be spoken.

    known: tells whether a lower-case word is in the reader's dictionary; capitals that are known are read, others are spelled.
    """
    text = re.sub(r"\((\d{3})\) ?(?=\d{3}[-. ]\d{4})", r"\1-", text)
    text = URL.sub(_address, re.sub(r"\n\s*\n", " . ", fold(text)))
    text = abbreviations(re.sub(r"\s+", " ", text))
    text = numbers(acronyms(ROMAN.sub(_roman, text), known))
    text = re.sub(r"(?<=[a-z0-9])\.(?=[a-z])", " dot ", text).lower()
    text = re.sub(r" -+ |-{2,}| -(?=[a-z])", " , ", text)
    text = "".join(SYMBOLS.get(c, c) for c in text)
    words = [_word(token) for token in re.findall(rf"[a-z]{NAMED}(?:'s)?|[a-z']+|[,.;:?!]", text)]
    tokens = _tidy([word for word in words if word])
    return " ".join(tokens)
