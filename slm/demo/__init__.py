"""The web page behind `slm demo`: type a text, give a voice, hear it and see it."""
