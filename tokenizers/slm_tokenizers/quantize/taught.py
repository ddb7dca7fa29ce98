"""A teacher for one level of codes: what it hears in a frame must be told from that level alone.

Zhang et al., 2023, "SpeechTokenizer", whose teacher is a self-supervised model; classes, such as phones, teach as well.

B batch   D width   T frames   E classes of the teacher
"""

import torch.nn.functional as F
from torch import Tensor, nn

from slm.errors import SlmError


def head(dim: int, classes: int) -> nn.Conv1d:
    """[B,D,T] -> logits [B,E,T]; it sees one frame to each side, because a phone is longer than 20 ms."""
    return nn.Conv1d(dim, classes, 3, padding=1)


def distill(student: Tensor, teacher: Tensor) -> Tensor:
    """student [B,T,E] logits, teacher [B,T] classes, -1 for none -> mean cross-entropy in nats. SlmError if they do not fit."""
    if teacher.shape != student.shape[:2]:
        raise SlmError(f"the teacher speaks of {list(teacher.shape)} frames but the codec makes {list(student.shape[:2])}")
    if int(teacher.max()) >= student.shape[-1]:
        raise SlmError(f"the teacher's class {int(teacher.max())} is outside 0 to {student.shape[-1] - 1}")
    if not (teacher >= 0).any():
        return student.float().sum() * 0
    return F.cross_entropy(student.float().flatten(0, 1), teacher.flatten(), ignore_index=-1)
