"""Every published system this toolkit aims at, where its recipe is, and what commands have measured of it.

What is written here is which results speak for which system, never a result: those are the JSON files below recipes/study/, which
`slm study` and `slm verify --json` write. A system without one is "not yet".
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from slm.errors import SlmError

if TYPE_CHECKING:
    from rich.table import Table

RECIPES = Path(__file__).parent.parent / "recipes"
NOT_YET = "not yet"
ALL = ("",)


@dataclass
class System:
    """recipe: a file below recipes/. studies: results below recipes/study/, and how the claims begin that speak for it; "": all of them.

    parity: names of checks in verify.json.
    """

    name: str
    recipe: str = ""
    studies: dict[str, tuple[str, ...]] = field(default_factory=dict)
    parity: tuple[str, ...] = ()


@dataclass
class Row:
    """One line of the table. figure: the first claim with its two values, or the largest error beside the reference; None: not yet."""

    name: str
    group: str
    recipe: str | None
    verified: str
    figure: str | None


GROUPS: dict[str, list[System]] = {
    "encoders and units": [
        System("wav2vec 2.0", "represent/wav2vec2.py", parity=("wav2vec2",)),
        System("HuBERT", "represent/hubert.py", {"hubert": ALL}, parity=("hubert",)),
        System("w2v-BERT", parity=("wav2vec2-bert",)),
        System("PaLM 2 (as referenced)", parity=("llama", "qwen2", "qwen3")),
        System("Learned absolute positions"),
    ],
    "quantisers and codecs": [
        System("VQ-VAE", "codec/vqvae.py"),
        System("SoundStream", "codec/soundstream.py", {"codec": ("2 levels", "4 levels", "8 levels", "dropout")}),
        System("EnCodec", "codec/encodec.py", parity=("encodec",)),
        System("SpeechTokenizer", "codec/speechtokenizer.py", {"codec": ("teaching", "swapped", "level 1")}),
        System("MEL+VQ+vocoder", "codec/melvq.py", {"melvq": ALL}),
        System("HiFi-GAN", "vocoder/hifigan.py", parity=("hifigan",)),
    ],
    "backbones": [
        System("SSD / Mamba-2", parity=("mamba2",)),
        System("MambaOut", "study/mixers.py", {"mixers": ALL}),
        System("BERT, GPT, ViT"),
        System("RWKV", parity=("rwkv",)),
        System("GPT-4o-style speech LM", "speech_lm/omni.py", {"omni": ("Transformer", "Mamba-2"), "grown": ALL, "interleaved": ALL}),
    ],
    "speech language models": [
        System("AudioLM", "speech_lm/audiolm.py", {"audiolm": ALL}),
        System("AudioPaLM", "speech_lm/audiopalm.py", {"audiopalm": ALL}),
        System("SALMONN"),
        System("SpeechGPT", "speech_lm/speechgpt.py", {"speechgpt": ALL, "phonetic": ALL}),
        System("SpeechGPT-Gen", "speech_lm/speechgpt_gen.py", {"speechgpt_gen": ALL}),
        System("VALL-E", "zero_shot/valle.py", {"hard": ("VALL-E",), "nar": ALL}),
        System("RALL-E", "zero_shot/ralle.py", {"hard": ("RALL-E",)}),
        System("Lyth & King / Parler-TTS", "speech_lm/parler.py", {"parler": ALL}),
        System("UniAudio", "speech_lm/uniaudio.py", {"uniaudio": ALL, "layouts": ALL}),
        System("Make-A-Voice", "speech_lm/makeavoice.py", {"makeavoice": ALL}),
        System("HAM-TTS", "zero_shot/hamtts.py", {"hamtts": ALL}),
    ],
    "acoustic models": [
        System("FastSpeech 2"),
        System("StyleTTS"),
        System("StyleTTS 2"),
        System("Mega-TTS"),
        System("Mega-TTS 2"),
        System("PromptTTS"),
        System("InstructTTS"),
        System("NaturalSpeech 2"),
        System("NaturalSpeech 3 / FACodec", "codec/facodec.py"),
        System("BASE TTS", "speech_lm/basetts.py", {"basetts": ALL}),
        System("Tortoise", "speech_lm/tortoise.py", {"tortoise": ALL}),
        System("HierSpeech++"),
    ],
    "diffusion, flow, text to audio": [
        System("Latent diffusion (LDM)"),
        System("AudioLDM 2"),
        System("VoiceLDM"),
        System("Audiobox (with Voicebox base)"),
    ],
    "understanding": [
        System("BLIP → audio–text MED + CapFilt"),
        System("SEEM → promptable audio segmentation"),
        System("LeViT convolutional stem"),
    ],
}


def rows() -> list[Row]:
    """All systems. SlmError if the recipes are not here, as they lie in the repository and not in the installed package."""
    if not RECIPES.is_dir():
        raise SlmError(f"there is no {RECIPES}; recipes and their results lie in the repository, so run this in a clone of it")
    checks = read(RECIPES / "study" / "verify.json") or []
    return [row(system, group, checks) for group, systems in GROUPS.items() for system in systems]


def row(system: System, group: str, checks: list[dict]) -> Row:
    recipe = f"recipes/{system.recipe}" if system.recipe else None
    studied = [of_study(name, claims) for name, claims in system.studies.items()]
    said = [found for found in (*studied, of_parity(system, checks)) if found]
    if not said:
        return Row(system.name, group, recipe, NOT_YET, None)
    return Row(system.name, group, recipe, "; ".join(verified for verified, _ in said), "; ".join(figure for _, figure in said))


def of_study(study: str, claims: tuple[str, ...]) -> tuple[str, str] | None:
    """How many of a study's claims that begin so held with every seed, and the first of them with its values."""
    report = read(RECIPES / "study" / f"{study}.json")
    if report is None:
        return None
    verdicts = [v for v in report["verdicts"] if v["claim"]["says"].startswith(claims)]
    if not verdicts:
        raise SlmError(f"recipes/study/{study}.json holds no claim that begins with {' or '.join(map(repr, claims))}")
    held = sum(v["holds"] for v in verdicts)
    one, other = (sum(pair[side] for pair in verdicts[0]["values"]) / len(verdicts[0]["values"]) for side in (0, 1))
    seeds = f"{len(report['seeds'])} seed{'s' * (len(report['seeds']) > 1)}"
    return (
        f"{held} of {len(verdicts)} claims hold ({seeds}, {report['items']} {report.get('of', 'held-out recordings')})",
        f"{verdicts[0]['claim']['says']}: {one:.3f} against {other:.3f}",
    )


def of_parity(system: System, checks: list[dict]) -> tuple[str, str] | None:
    """Whether the checks beside the reference implementation passed, and the largest error."""
    mine = [check for check in checks if check["name"] in system.parity and check["mode"].startswith("transformers")]
    if not mine:
        return None
    wrong = sum(not check["passed"] for check in mine)
    return (
        "differs from transformers" if wrong else "as transformers on the same weights",
        f"largest error {max(check['error'] for check in mine):.1e}",
    )


def read(path: Path) -> dict | list | None:
    """The result at `path`, None if there is none. SlmError if it is damaged."""
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text())
    except ValueError:
        raise SlmError(f"{path} is damaged") from None


def table(found: list[Row]) -> Table:
    """The systems for people."""
    from rich.table import Table

    shown = Table(box=None, pad_edge=False)
    for heading in ("system", "recipe", "verified", "figure"):
        shown.add_column(heading, overflow="fold")
    group = ""
    for row in found:
        if row.group != group:
            group = row.group
            shown.add_section()
            shown.add_row(f"[bold]{group}[/bold]")
        shown.add_row(row.name, row.recipe or "-", row.verified, row.figure or "-")
    return shown
