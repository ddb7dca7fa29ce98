"""A predicted mean opinion score, 1 (bad) to 5 (excellent): DistillMOS (Stahl & Gamper, 2025). A prediction, not a listening test.

N samples at 16 kHz
"""

import contextlib
import io

import numpy as np

from slm.evaluate.extra import need


class MosPredictor:
    """Raises SlmError when distillmos is not installed."""

    def __init__(self):
        package = need("distillmos", "the MOS predictor")
        with contextlib.redirect_stdout(io.StringIO()):  # it announces its weights on stdout, where our JSON goes
            self.model = package.ConvTransformerSQAModel().eval()

    def predict(self, audio: np.ndarray) -> float:
        """audio [N] -> the predicted score; 1 for silence or nothing, which no listener would praise."""
        import torch

        if not audio.any():
            return 1.0
        with torch.inference_mode():
            return float(self.model(torch.from_numpy(audio)[None]))
