"""Text tokenizers: phonemes (ARPAbet) and bytes, with the normaliser and the splitter they share."""
