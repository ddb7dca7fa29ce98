"""Backbones: causal (or bidirectional) sequence mixers from [B,S,D] to [B,S,D] that run at once, in chunks or step by step.

`load` makes a language model of what transformers saved.
"""

# The module is light. Were it imported later, it would stand where the function of its name belongs.
from slm.backbone.load import load

__all__ = ["load"]
