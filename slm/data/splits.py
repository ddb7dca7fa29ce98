"""Speakers that no shipped model has heard, so that voices stay to be tested with."""

# every twelfth speaker of the LibriSpeech subset; the development set's speakers are in no training folder at all
HELD_OUT = (
    "libri_103", "libri_125", "libri_1624", "libri_1970", "libri_2196", "libri_2518", "libri_2911",
    "libri_3235", "libri_3664", "libri_40", "libri_426", "libri_458", "libri_5049", "libri_5652",
    "libri_6019", "libri_6437", "libri_696", "libri_7302", "libri_7800", "libri_83", "libri_8630",
)
