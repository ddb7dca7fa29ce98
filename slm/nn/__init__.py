"""Small layers shared by the backbones, the tokenizers and the vocoders."""
