"""A text model that learns to hear and to speak: its vocabulary grows by the ids of speech, and it goes on as recipes/speech_lm/omni.py.

    slm train recipes/speech_lm/textlm.py --out runs/llm       # or put Llama, Qwen2, Qwen3 or Mamba-2 there: `save_pretrained("runs/llm")`
    slm train recipes/speech_lm/grown.py --out runs/grown
    slm study recipes/study/grown.py                           # does it help to have read before?

AudioPaLM (Rubenstein et al., 2023) and SpeechGPT (Zhang et al., 2023) are this with PaLM 2 and LLaMA; the former reports 18.4 BLEU of
speech translation where the same model from random weights has 6.9. What lies in runs/llm gives the layers and, of transformers', the text
tokenizer.
"""

from pathlib import Path

from slm.backbone.transformer import Transformer
from slm.recipe import Recipe, load, main
from slm.stage.begin import form

omni = load(Path(__file__).parent / "omni.py")


def recipe(llm: str = "runs/llm", units: str = "runs/phonetic/units") -> Recipe:
    r = omni.recipe(units=units)
    r.train["omni"].start = llm
    if found := form(llm):
        r.stages["omni"].backbone, r.tokenizers["text"] = found
        if not isinstance(found[0], Transformer.Config):
            r.stages["omni"].places = {}
    return r


def small() -> Recipe:
    return omni.small()


if __name__ == "__main__":
    main(__file__)
