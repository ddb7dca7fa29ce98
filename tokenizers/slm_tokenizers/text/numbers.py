"""Digits to English words: years, money, dates, times, fractions, ordinals, decimals, phone numbers.

`numbers("on May 5, 1984 at 3:05")` -> "on may fifth, nineteen eighty four at three oh five". Every rule is one pattern and
one function; their order matters (a date must be seen before the plain numbers inside it).
"""

import re

MONTHS = ("january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november", "december")
SHORT = {m[:3]: m for m in MONTHS} | {"sept": "september"}
COINS = {"$": ("dollar", "cent"), "£": ("pound", "penny"), "€": ("euro", "cent"), "¥": ("yen", ""), "₹": ("rupee", "paisa")}
PLURALS = {"penny": "pence", "yen": "yen", "paisa": "paise", "foot": "feet", "inch": "inches", "hertz": "hertz"}
SCALES = {"k": "thousand", "m": "million", "bn": "billion", "b": "billion"} | {
    s: s for s in ("hundred", "thousand", "million", "billion", "trillion")
}
UNITS = {
    "km": "kilometer", "cm": "centimeter", "mm": "millimeter", "kg": "kilogram", "mg": "milligram", "ml": "milliliter",
    "ft": "foot", "lb": "pound", "lbs": "pound", "oz": "ounce", "hz": "hertz", "khz": "kilohertz", "mhz": "megahertz",
    "ghz": "gigahertz", "kb": "kilobyte", "mb": "megabyte", "gb": "gigabyte", "tb": "terabyte", "ms": "millisecond",
    "sec": "second", "secs": "second", "min": "minute", "mins": "minute", "hr": "hour", "hrs": "hour", "yd": "yard", "yds": "yard",
}  # fmt: skip
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
NAMED = "\x01"  # follows a letter that is named ("a. m."), until the normaliser's last step writes it as a dot
LONGEST = 15  # digits; a longer run is an identifier, and is read digit by digit
# a number from its first digit on: a match that may start inside a long run of digits would take quadratic time
NUM = r"(?<!\d)(?:\d+(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?)"


def _plain(words: str) -> str:
    return words.replace(",", "").replace("-", " ")


def digits(run: str) -> str:
    """Digit by digit: "007" -> "zero zero seven"."""
    return " ".join(DIGITS[int(d)] for d in run if d in "0123456789")


def cardinal(run: str) -> str:
    """As a quantity: "1,234.5" -> "one thousand two hundred and thirty four point five"."""
    from num2words import num2words

    whole, _, part = run.replace(",", "").partition(".")
    long = len(whole) > LONGEST or (len(whole) > 1 and whole[0] == "0")
    said = digits(whole) if long else _plain(num2words(int(whole or "0")))
    return f"{said} point {digits(part)}" if part else said


def ordinal(run: str) -> str:
    """As a place in a row: "21" -> "twenty first"."""
    from num2words import num2words

    run = run.replace(",", "")
    return digits(run) if len(run) > LONGEST else _plain(num2words(int(run), to="ordinal"))


def year(run: str) -> str:
    """As a year: "1905" -> "nineteen oh five", "2004" -> "two thousand and four"."""
    from num2words import num2words

    return _plain(num2words(int(run), to="year"))


def number(run: str) -> str:
    """A bare number: four digits from 1010 to 2099 are read as a year, the rest as a cardinal."""
    return year(run) if len(run) == 4 and run.isdigit() and 1010 <= int(run) <= 2099 else cardinal(run)


def plural(noun: str) -> str:
    return PLURALS.get(noun) or (noun[:-1] + "ies" if noun.endswith("y") else noun if noun.endswith("s") else noun + "s")


def _many(run: str, noun: str) -> str:
    return noun if run == "1" else plural(noun)


def _money(m: re.Match) -> str:
    (unit, cent), whole, scale = COINS[m["coin"]], m["num"], m["scale"]
    if scale:
        return f" {cardinal(whole)} {SCALES[scale.lower()]} {plural(unit)} "
    big, _, small = whole.partition(".")
    if len(small) != 2 or not cent:
        return f" {cardinal(whole)} {_many(whole, unit)} "
    cents = f"{cardinal(str(int(small)))} {_many(str(int(small)), cent)}" if int(small) else ""
    dollars = f"{cardinal(big)} {_many(big, unit)}" if int(big.replace(",", "")) or not cents else ""
    return " " + " and ".join(filter(None, (dollars, cents))) + " "


def _time(m: re.Match) -> str:
    hour, minute, second, half = int(m["h"]), int(m["m"]), m["s"], m["half"]
    if hour > 24 or minute > 59:
        return f" {cardinal(m['h'])} {cardinal(str(minute))} "
    said = cardinal(str(hour))
    if minute:
        said += " oh" * (minute < 10) + " " + cardinal(str(minute))
    elif not half and not second:
        said += " o'clock" if 1 <= hour <= 12 else " hundred"
    if second:
        said += f" and {cardinal(str(int(second)))} seconds"
    return f" {said} " + (f"{half[0].lower()}{NAMED} m{NAMED} " if half else "")


def _half_day(m: re.Match) -> str:
    return f" {cardinal(m[1])} {m[2].lower()}{NAMED} m{NAMED} "


def _date(month: str, day: str, years: str | None) -> str:
    return f" {month} {ordinal(str(int(day)))}" + (f", {number(years)}" if years else "") + " "


def _month_day(m: re.Match) -> str:
    return _date(SHORT[m[1].lower()[:3]], m[2], m[3])


def _day_month(m: re.Match) -> str:
    return f" the {ordinal(m[1])} of {SHORT[m[2].lower()[:3]]} " + (f"{number(m[3])} " if m[3] else "")


def _numeric_date(m: re.Match) -> str:
    years, month, day = (m["y"], m["mo"], m["d"]) if m["y"] else (m["y2"], m["mo2"], m["d2"])
    if int(month) > 12:
        month, day = day, month
    if not (1 <= int(month) <= 12 and 1 <= int(day) <= 31):
        return " ".join(number(part) for part in re.findall(r"\d+", m[0]))
    return _date(MONTHS[int(month) - 1], day, years)


def _fraction(m: re.Match) -> str:
    whole, top, bottom = m["whole"], int(m["top"]), int(m["bottom"])
    if (top, bottom) == (9, 11) or (top > bottom and bottom not in (2, 3, 4, 8)):
        return f" {whole or ''} {cardinal(m['top'])} {cardinal(m['bottom'])} "
    if not 2 <= bottom <= 100 or top > 100:
        return f" {(whole or '').strip()} {cardinal(m['top'])} over {cardinal(m['bottom'])} "
    part = {2: "half", 4: "quarter"}.get(bottom) or ordinal(str(bottom))
    part = part if top == 1 else "halves" if bottom == 2 else part + "s"
    return (f" {cardinal(whole.strip())} and" if whole else "") + f" {cardinal(str(top))} {part} "


def _decade(m: re.Match) -> str:
    run = m[1]
    said = number(run) if len(run) != 2 else cardinal(run)
    return f" {plural(said) if not said.endswith('hundred') else said + 's'} "


def _unit(m: re.Match) -> str:
    return f" {cardinal(m[1])} {_many(m[1], UNITS[m[2].lower()])} "


MONTH = (
    r"(jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    r"|nov(?:ember)?|dec(?:ember)?)"
)
DAY = r"(?<![\d/-])(?:(?P<y>\d{4})-(?P<mo>\d{1,2})-(?P<d>\d{1,2})|(?P<mo2>\d{1,2})/(?P<d2>\d{1,2})/(?P<y2>\d{4}))(?![\d/-])"
PHONE = r"\b(?:\+?1[-. ])?\(?\d{3}\)?[-. ]\d{3}[-. ]\d{4}\b|\b\d{3}-\d{4}\b"
RULES = tuple(
    (re.compile(pattern, re.IGNORECASE), rule)
    for pattern, rule in (
        (DAY, _numeric_date),
        (rf"\b{MONTH}\.?\s+(\d{{1,2}})(?:st|nd|rd|th)?\b(?:,?\s+(\d{{4}})\b)?(?![:%]|\.\d)", _month_day),
        (rf"\b(?:the\s+)?(\d{{1,2}})(?:st|nd|rd|th)?\s+(?:of\s+)?{MONTH}\b\.?(?:,?\s+(\d{{4}})\b)?", _day_month),
        (r"(?<![\d:])(?P<h>\d{1,2}):(?P<m>\d{2})(?::(?P<s>\d{2}))?(?:\s*(?P<half>[ap]\.?m\b)\.?)?(?![\d:])", _time),
        (r"\b(\d{1,2})\s*([ap])\.?m\b\.?", _half_day),
        (PHONE, lambda m: f" {', '.join(map(digits, re.findall('[0-9]+', m[0])))} "),
        (r"(?<=\d)(?:[-–:]| [-–] )(?=[$£€]?\d)", lambda m: " to "),
        (rf"(?P<coin>[$£€¥₹])\s?(?P<num>{NUM})(?:\s?(?P<scale>{'|'.join(SCALES)})\b)?", _money),
        (r"(?P<whole>(?<!\d)\d+\s+)?(?<![\d.,/])(?P<top>\d{1,6})[/⁄](?P<bottom>\d{1,6})(?![\d/]|\.\d)", _fraction),
        (r"\b(\d{1,3}(?:,\d{3})+|\d+)(?:st|nd|rd|th)\b", lambda m: f" {ordinal(m[1])} "),
        (r"\b(\d{1,2}|\d{3}0)'?s\b", _decade),
        (rf"\b({NUM})\s?(mph|km/h)\b", lambda m: f" {cardinal(m[1])} {'miles' if m[2] in 'mphMPH' else 'kilometers'} per hour "),
        (rf"\b({NUM})\s?({'|'.join(UNITS)})\b", _unit),
        (rf"({NUM})\s?%", lambda m: f" {cardinal(m[1])} percent "),
        (rf"({NUM})\s?°\s?([CF])\b", lambda m: f" {cardinal(m[1])} degrees {'celsius' if m[2] in 'cC' else 'fahrenheit'} "),
        (r"(?<=\d)\s?[x×*]\s?(?=\d)", lambda m: " times "),
        (r"(?:(?<=\s)|^)[-−](?=\.?\d)", lambda m: " minus "),
        (r"(?<!\d)\.(\d+)", lambda m: f" point {digits(m[1])} "),
        (r"(?<!\d)\d+(?:\.\d+){2,}", lambda m: f" {' point '.join(cardinal(part) for part in m[0].split('.'))} "),
        (NUM, lambda m: f" {number(m[0])} "),
    )
)  # fmt: skip


def numbers(text: str) -> str:
    """`text` with every run of ASCII digits turned into words; everything else is left as it was."""
    if not any(c in "0123456789" for c in text):
        return text
    for pattern, rule in RULES:
        text = pattern.sub(rule, text)
    return re.sub(r"(?<=[a-z]) +(?='s\b)", "", text)
