"""One set of judges hears every kind of audio the same way: words, voice, predicted opinion, and for reconstructions the distance.

A source gives the audio of a pair; a line of the report is a source heard over all pairs. Nothing here knows of models.    N samples
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Self

import numpy as np

from slm.errors import SlmError
from slm.evaluate.interval import mean_by, paired_test
from slm.evaluate.mos import MosPredictor
from slm.evaluate.pairs import JUDGED, Pair, as_judged, read_audio
from slm.evaluate.report import Report, Score, mean_score, ratio_score
from slm.evaluate.speaker import SpeakerEncoder, own_and_other
from slm.evaluate.transcribe import Recogniser
from slm.evaluate.wer import Errors, count_errors, wer_scores

PACKAGES = ("faster-whisper", "ctranslate2", "Resemblyzer", "distillmos", "jiwer", "torch")


@dataclass
class Judges:
    """The independent models behind the figures."""

    recogniser: Recogniser
    encoder: SpeakerEncoder
    mos: MosPredictor

    @property
    def settings(self) -> dict:
        """What one must know to get the same figures again."""
        return {**self.recogniser.settings, "packages": {name: _version(name) for name in PACKAGES}}


def load_judges(whisper: str = "base", threads: int = 1) -> Judges:
    """All judges on the CPU; `whisper` is a name that Recogniser knows. Raises SlmError for what is not installed."""
    return Judges(Recogniser(whisper, threads), SpeakerEncoder(), MosPredictor())


@dataclass
class Voiced:
    """What a source gives for a pair: audio [N] at `rate` Hz, how long it took, and (a reconstruction) what it should equal."""

    audio: np.ndarray
    rate: int
    wall_seconds: float | None = None
    first_audio_seconds: float | None = None
    stop_reason: str | None = None
    original: Self | None = None


@dataclass
class Heard:
    """What the judges made of one utterance; `own` and `other`: similarity to the speaker's prompt and to other speakers' prompts."""

    line: str
    id: str
    speaker: str
    text: str
    heard: str
    errors: Errors
    own: float
    other: float | None
    mos: float
    seconds: float
    wall_seconds: float | None
    first_audio_seconds: float | None
    stop_reason: str | None
    distance: dict[str, float] = field(default_factory=dict)


@dataclass
class Prompts:
    """Embeddings of every prompt of an evaluation and who speaks it."""

    by_path: dict[str, np.ndarray]
    speakers: dict[str, str]

    @classmethod
    def of(cls, pairs: Sequence[Pair], encoder: SpeakerEncoder) -> Self:
        speakers = {pair.prompt_path: pair.speaker for pair in pairs}
        return cls({path: encoder.embed(as_judged(*read_audio(path))) for path in speakers}, speakers)

    def compare(self, voice: np.ndarray, pair: Pair) -> tuple[float, float | None]:
        """Similarity to the pair's own prompt, and the mean one to every prompt of another speaker."""
        others = [prompt for path, prompt in self.by_path.items() if self.speakers[path] != pair.speaker]
        return own_and_other(voice, self.by_path[pair.prompt_path], others)


def judge(sources: dict[str, Callable[[int, Pair], Voiced]], pairs: Sequence[Pair], judges: Judges, seed: int = 0,
          progress: bool = True) -> Report:
    """Hear every source over all pairs. The report has a line a source, in order, and a paired test a line where there are two speakers."""
    if not pairs:
        raise SlmError("there is nothing to evaluate: the list of pairs is empty")
    prompts = Prompts.of(pairs, judges.encoder)
    heard: dict[str, list[Heard]] = {line: [] for line in sources}
    for i, pair in enumerate(_shown(pairs, progress)):
        for line, source in sources.items():
            heard[line].append(hear(line, source(i, pair), pair, prompts, judges))
    settings = {"seed": seed, "pairs": len(pairs), "judges": judges.settings}
    report = Report({line: scores(found, seed) for line, found in heard.items()}, settings)
    for line, found in heard.items():
        if all(h.other is not None for h in found):
            gaps = [h.own for h in found], [h.other for h in found]
            who = [h.speaker for h in found]
            report.paired[f"{line}: own prompt - others', utterances"] = paired_test(*gaps, seed)
            report.paired[f"{line}: own prompt - others', speakers"] = paired_test(*(mean_by(who, g) for g in gaps), seed)
        for h in found:
            if h.stop_reason is not None:
                report.stop_reasons[h.stop_reason] = report.stop_reasons.get(h.stop_reason, 0) + 1
    report.utterances = [asdict(h) for found in heard.values() for h in found]
    return report


def hear(line: str, voiced: Voiced, pair: Pair, prompts: Prompts, judges: Judges) -> Heard:
    """Every judgement of one utterance. Raises SlmError when the audio is not finite."""
    audio = as_judged(voiced.audio, voiced.rate)
    if not np.isfinite(audio).all():
        raise SlmError(f"{line}, pair {pair.id}: the audio holds NaN or infinite samples")
    text = judges.recogniser.transcribe(audio)
    own, other = prompts.compare(judges.encoder.embed(audio), pair)
    distance = {}
    if voiced.original is not None:
        from slm.evaluate.codec import codec_measures

        distance = codec_measures(as_judged(voiced.original.audio, voiced.original.rate), audio, JUDGED)
    return Heard(line, pair.id, pair.speaker, pair.text, text, count_errors(pair.text, text), own, other, judges.mos.predict(audio),
                 len(audio) / JUDGED, voiced.wall_seconds, voiced.first_audio_seconds, voiced.stop_reason, distance)


def scores(found: Sequence[Heard], seed: int) -> list[Score]:
    """The scores of one line; a measure that no utterance has is left out."""
    made = wer_scores([h.errors for h in found], seed)
    columns = {
        "similarity to own prompt": [h.own for h in found],
        "similarity to others' prompts": [h.other for h in found],
        "MOS (DistillMOS)": [h.mos for h in found],
        "seconds": [h.seconds for h in found],
        "time to first audio s": [h.first_audio_seconds for h in found],
    }
    columns |= {name: [h.distance.get(name) for h in found] for name in dict.fromkeys(n for h in found for n in h.distance)}
    for name, values in columns.items():
        there = [v for v in values if v is not None]
        if there:
            made.append(mean_score(name, there, seed))
    timed = [h for h in found if h.wall_seconds is not None]
    if sum(h.seconds for h in timed):
        made.append(ratio_score("RTF", [h.wall_seconds for h in timed], [h.seconds for h in timed], seed))
    return made


def _shown(pairs: Sequence[Pair], progress: bool) -> Iterable[Pair]:
    from rich.console import Console
    from rich.progress import track

    return track(pairs, "judging", console=Console(stderr=True), disable=not progress, transient=True)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
