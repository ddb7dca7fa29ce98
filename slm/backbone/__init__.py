"""Backbones: causal (or bidirectional) sequence mixers from [B,S,D] to [B,S,D] that run at once, in chunks or step by step."""
