"""What a codec of one channel hears and returns: refuses what it cannot hear, and cuts to the samples asked for.

B batch, N samples.
"""

from torch import Tensor

from slm.errors import SlmError


def check_audio(audio: Tensor) -> None:
    """Raises SlmError unless audio is finite floats [B,1,N] with at least one sample."""
    if audio.dim() != 3 or not audio.is_floating_point():
        raise SlmError(f"audio is {audio.dtype} of shape {list(audio.shape)} but floats [B, 1, N] are needed")
    if audio.shape[1] != 1:
        raise SlmError(f"audio has {audio.shape[1]} channels but this codec hears 1")
    if audio.shape[2] == 0:
        raise SlmError("audio has 0 samples but this codec needs at least one")
    if not audio.isfinite().all():
        raise SlmError("audio holds NaN or infinite samples")


def cut(audio: Tensor, samples: int | None) -> Tensor:
    """audio [B,1,N] -> its first `samples`, all of them by default. SlmError if there are fewer."""
    if samples is None:
        return audio
    if not 1 <= samples <= audio.shape[-1]:
        raise SlmError(f"samples is {samples} but these codes hold 1 to {audio.shape[-1]} samples")
    return audio[..., :samples]
