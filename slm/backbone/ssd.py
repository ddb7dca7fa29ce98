"""State space duality (Mamba-2, Dao & Gu, 2024): one linear map, three ways to compute it.

    h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_t^T          y_t = h_t C_t

`ssd_chunked` splits the semiseparable matrix into blocks (section 6): diagonal blocks by the quadratic form, the rest
through one state a chunk. `ssd_quadratic` is the dual, attention-like form. `ssd_step` advances one step, `ssd_advance` in place.
Decays are cumulated and exponentiated in float32 (or wider); matrix products follow the autocast dtype.

x [B,S,H,P]   dt [B,S,H]   A [H] < 0   B, C [B,S,G,N]   state [B,H,P,N]
B batch   S steps   H heads   P head width   G groups of heads that share B and C   N state width   K chunks   L chunk length
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from slm.kernels import usable

LARGEST = 64 * 128  # P N of the fused kernel, which keeps the state of a head in registers


def runs(documents: Tensor) -> Tensor:
    """Document ids [B,S] -> the number of document changes so far [B,S]; an id that comes back later is a new run."""
    return F.pad((documents[:, 1:] != documents[:, :-1]).long().cumsum(1), (1, 0))


def ssd_chunked(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, chunk: int = 64, state: Tensor | None = None, run: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """y [B,S,H,P] in x's dtype, and the state after the last step in dt's.

    dt is positive; a step with dt = 0 leaves the state alone. `run` [B,S] never decreases; the state is forgotten where
    it grows (see `runs`), and `state` must then be None. `chunk` is the largest chunk: S is cut into equal parts.
    """
    steps, heads, groups = x.shape[1], x.shape[2], B.shape[2]
    chunks = -(-steps // chunk)
    length = -(-steps // chunks)
    pad = chunks * length - steps
    if pad:
        x, B, C = (F.pad(t, (0, 0, 0, 0, 0, pad)) for t in (x, B, C))
        dt = F.pad(dt, (0, 0, 0, pad))
        run = None if run is None else torch.cat([run, run[:, -1:].expand(-1, pad)], 1)
    x, dt, B, C = (t.unflatten(1, (chunks, length)) for t in (x, dt, B, C))
    run = None if run is None else run.unflatten(1, (chunks, length))
    sums = _cumulate(dt * A, run)  # [B,K,L,H]
    B, C = B.transpose(2, 3), C.transpose(2, 3)  # [B,K,G,L,N]

    inside = _inside(sums, dt, x, B, C, run)
    written, kept, read = _crossings(sums, run)
    writes = (x * (dt * written).to(x.dtype)[..., None]).unflatten(3, (groups, heads // groups)).permute(0, 1, 3, 4, 5, 2)
    new = (writes.flatten(3, 4) @ B).unflatten(3, (heads // groups, -1)).flatten(2, 3)  # [B,K,H,P,N]
    starts, state = _carry(new, kept, state)
    across = C @ starts.unflatten(2, (groups, -1)).flatten(3, 4).transpose(-1, -2)  # [B,K,G,L,hP]
    across = across.transpose(2, 3).reshape(inside.shape)
    y = torch.addcmul(inside, across, read.to(inside.dtype)[..., None])
    return y.flatten(1, 2)[:, :steps].to(x.dtype), state


def scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    chunk: int = 64,
    state: Tensor | None = None,
    run: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`ssd_chunked` and D [H] times x on top of its y; fused where kernels are, for states of a head up to Mamba-2's own largest."""
    if x.shape[3] * B.shape[3] <= LARGEST and usable(x):
        from slm.kernels.ssd import ssd

        return ssd(x, dt, A, B, C, chunk, state, run, D)
    y, state = ssd_chunked(x, dt, A, B, C, chunk, state, run)
    return torch.addcmul(y, x, D.to(y.dtype)[:, None]), state


def _cumulate(log_decay: Tensor, run: Tensor | None) -> Tensor:
    """Inclusive sums over L of [B,K,L,H], starting afresh in each run.

    With runs: by doubling, so that not even the rounding of a sum depends on another document.
    """
    if run is None:
        return log_decay.cumsum(2)
    shift = 1
    while shift < run.shape[2]:
        same = (run[:, :, shift:] == run[:, :, :-shift])[..., None]
        log_decay = log_decay + F.pad(log_decay[:, :, :-shift] * same, (0, 0, shift, 0))
        shift *= 2
    return log_decay


def _inside(sums: Tensor, dt: Tensor, x: Tensor, B: Tensor, C: Tensor, run: Tensor | None) -> Tensor:
    """Diagonal blocks: what each chunk's inputs say to its own outputs, [B,K,L,H,P]."""
    length, groups = sums.shape[2], B.shape[2]
    hidden = torch.ones(length, length, dtype=torch.bool, device=sums.device).triu(1)
    if run is not None:
        hidden = (hidden | (run[..., :, None] != run[..., None, :]))[:, :, None]
    # dt_j exp(a_i - a_j) = exp(a_i - (a_j - log dt_j)): the scaling of the inputs costs nothing here.
    scaled = sums - dt.clamp(min=1e-30).log()
    # -inf before exp, never a product after it: above the diagonal exp overflows and its gradient would be nan.
    decay = sums.transpose(2, 3)[..., :, None] - scaled.transpose(2, 3)[..., None, :]
    decay = decay.masked_fill_(hidden, -torch.inf).exp_().unflatten(2, (groups, -1))  # [B,K,G,H/G,L,L]
    scores = C @ B.transpose(-1, -2)
    scores = scores[:, :, :, None] * decay.to(scores.dtype)
    return (scores.flatten(2, 3) @ x.transpose(2, 3)).transpose(2, 3)


def _crossings(sums: Tensor, run: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Decays from each step to its chunk's end [B,K,L,H], over a whole chunk [B,K,H], from its start to each step [B,K,L,H]."""
    to_end, kept, read = sums[:, :, -1:] - sums, sums[:, :, -1].exp(), sums.exp()
    if run is None:
        return to_end.exp(), kept, read
    last = run[:, :, -1]
    before = F.pad(last[:, :-1], (1, 0))
    # sums restart with a run, so to_end is positive and may overflow for steps of an earlier one: hide it before exp.
    written = to_end.masked_fill((run != last[:, :, None])[..., None], -torch.inf).exp()
    return written, kept * (last == before)[..., None], read * (run == before[:, :, None])[..., None]


def _carry(new: Tensor, kept: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
    """The recurrence over chunks: the state at each chunk's start [B,K,H,P,N] in new's dtype, and after the last in kept's."""
    state = torch.zeros_like(new[:, 0], dtype=kept.dtype) if state is None else state
    starts = []
    for k in range(new.shape[1]):
        starts.append(state.to(new.dtype))
        state = torch.addcmul(new[:, k].to(kept.dtype), state, kept[:, k, :, None, None])
    return torch.stack(starts, 1), state


def ssd_quadratic(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """y [B,S,H,P] as masked attention without a softmax: (L * C B^T)(dt x), O(S^2)."""
    share = x.shape[2] // B.shape[2]
    B, C = B.repeat_interleave(share, 2), C.repeat_interleave(share, 2)
    sums = (dt * A).cumsum(1)
    past = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()[..., None]
    decay = (sums[:, :, None] - sums[:, None]).masked_fill(~past, -torch.inf).exp()  # [B,S,S,H]
    return torch.einsum("bthn,bshn,btsh,bshp->bthp", C, B, decay, x * dt[..., None])


def ssd_step(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """One step: x [B,H,P], dt [B,H], B, C [B,G,N], state [B,H,P,N] -> y [B,H,P] in x's dtype and the next state."""
    share = x.shape[1] // B.shape[1]
    if share > 1 and B.shape[1] > 1:
        B, C = B.repeat_interleave(share, 1), C.repeat_interleave(share, 1)
    decay = (dt * A).exp()[..., None, None]
    state = torch.addcmul(state * decay, (x * dt[..., None])[..., None], B[:, :, None].to(state.dtype))
    return (state * C[:, :, None]).sum(-1).to(x.dtype), state


def ssd_advance(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor) -> Tensor:
    """`ssd_step` where nothing is learned: y [B,H,P], and the next state is written into `state`."""
    groups = B.shape[1]
    state.mul_((dt * A).exp()[..., None, None])
    rows = state.unflatten(1, (groups, -1)).flatten(2, 3)  # [B,G,hP,N], the state itself
    rows.addcmul_((x * dt[..., None]).reshape(len(x), groups, -1, 1), B[:, :, None].to(state.dtype))
    return (rows @ C[..., None].to(state.dtype)).reshape(x.shape).to(x.dtype)
