"""State space duality (Mamba-2) in one pass forward and two back; its twin is `slm.backbone.ssd.scan`.

Forward: a program owns a head of a row and walks over the chunks with the state in registers, so x, B and C are read once and
nothing but y (and, to train, the state at each chunk's start) is written. Back: `_states_back` walks the other way with the
gradient of the state; then all chunks run at once, the heads of a group one after the other, so that C B^T is computed once
a group and the gradients of B and C are summed in registers. Sums of log decays live in registers; float32 or wider.

x, y [B,S,H,P]   dt [B,S,H]   A, D [H]   B, C [B,S,G,N]   run [B,S]   state [B,H,P,N]   starts, ends [B,K,H,P,N]
B batch   S steps   H heads   P head width   G groups   N state width   K chunks   L chunk length
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from slm.kernels.tile import block, bound, formats, helper, product, rows


def ssd(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    chunk: int = 64,
    state: Tensor | None = None,
    run: Tensor | None = None,
    D: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """y [B,S,H,P] in x's dtype, and the state after the last step in dt's, as `ssd_chunked`; with D, y + D x.

    dt is positive, 0 at padding; `run` [B,S] never decreases and forgets the state where it grows. `chunk` is rounded to 16, 32, 64 or 128.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    D = None if D is None else D.to(wide)
    state = None if state is None else state.to(wide)
    y, after = _SSD.apply(x, dt.to(wide), A.to(wide), B.to(x.dtype), C.to(x.dtype), D, state, run, min(128, block(chunk)))
    return y, after.to(dt.dtype)


@helper
def _chunk(dt, run, A, begin, S, H, L: tl.constexpr, RUN: tl.constexpr):
    """One chunk of one head: t [L], dt [L], who is in whose past [L,L], sums of log decays since the chunk or the run began [L],
    and the decays from the chunk's start to each step [L], from each step to its end [L], and over all of it."""
    i = tl.arange(0, L)
    t = begin + i
    d = tl.load(dt + t * H, mask=t < S, other=0.0)
    past = i[:, None] >= i[None, :]
    if RUN:
        mine = tl.load(run + tl.minimum(t, S - 1))
        before = tl.load(run + tl.maximum(begin - 1, 0))
        final = tl.load(run + tl.minimum(begin + L - 1, S - 1))
        past = past & (mine[:, None] == mine[None, :])
    # A masked sum and no scan: adding zeros is exact, so not even the rounding depends on another document.
    sums = tl.sum(tl.where(past, (d * A)[None, :], 0.0), 1)
    end = tl.sum(tl.where(i == L - 1, sums, 0.0), 0)
    read, write, keep = tl.exp(sums), end - sums, tl.exp(end)
    if RUN:
        read = tl.where(mine == before, read, 0.0)
        write = tl.where(mine == final, write, float("-inf"))
        keep = tl.where(final == before, keep, 0.0)
    return t, d, past, sums, read, tl.exp(write), keep


@triton.jit
def _forward(x, dt, A, B, C, D, run, first, y, starts, last, xb, xs, bb, bs, cb, cs, S, H, share, chunks,
             P: tl.constexpr, N: tl.constexpr, L: tl.constexpr, BP: tl.constexpr, BN: tl.constexpr, SKIP: tl.constexpr,
             RUN: tl.constexpr, FIRST: tl.constexpr, KEEP: tl.constexpr,
             ROUND: tl.constexpr, FEED: tl.constexpr, WIDE: tl.constexpr, TOLD: tl.constexpr):  # fmt: skip
    """A program: one head of one row, BP of its P channels, all chunks."""
    row, head = (tl.program_id(0) // H).to(tl.int64), tl.program_id(0) % H
    p, n = tl.program_id(1) * BP + tl.arange(0, BP), tl.arange(0, BN)
    x += row * xb + head * P + p[None, :]
    B += row * bb + head // share * N + n[None, :]
    C += row * cb + head // share * N + n[None, :]
    dt += row * S * H + head
    run += row * S
    y += row * S * H * P + head * P + p[None, :]
    cell, inside = p[:, None] * N + n[None, :], (p < P)[:, None] & (n < N)[None, :]
    decay = tl.load(A + head)
    state = tl.zeros((BP, BN), WIDE)
    if FIRST:
        state = tl.load(first + (row * H + head) * P * N + cell, mask=inside, other=0.0)
    for k in range(chunks):
        t, d, past, sums, read, write, keep = _chunk(dt, run, decay, k * L, S, H, L, RUN)
        wide = (t < S)[:, None] & (p < P)[None, :]
        narrow = (t < S)[:, None] & (n < N)[None, :]
        u = tl.load(x + t[:, None] * xs, mask=wide, other=0.0)
        b = tl.load(B + t[:, None] * bs, mask=narrow, other=0.0)
        c = tl.load(C + t[:, None] * cs, mask=narrow, other=0.0)
        if KEEP:
            tl.store(starts + ((row * chunks + k) * H + head) * P * N + cell, state, mask=inside)
        decays = tl.exp(tl.where(past, sums[:, None] - sums[None, :], float("-inf"))) * d[None, :]
        scores = product(c, tl.trans(b), ROUND, FEED, WIDE, TOLD) * decays
        out = product(scores, u, ROUND, FEED, WIDE, TOLD)
        out += read[:, None] * product(c, tl.trans(state), ROUND, FEED, WIDE, TOLD)
        u = u.to(WIDE)
        if SKIP:
            out += tl.load(D + head) * u
        tl.store(y + t[:, None] * H * P, out, mask=wide)
        state = state * keep + product(tl.trans(u * (write * d)[:, None]), b, ROUND, FEED, WIDE, TOLD)
    tl.store(last + (row * H + head) * P * N + cell, state, mask=inside)


@triton.jit
def _states_back(dy, dt, A, C, run, dlast, ends, dfirst, cb, cs, S, H, share, chunks,
                 P: tl.constexpr, N: tl.constexpr, L: tl.constexpr, BP: tl.constexpr, BN: tl.constexpr, RUN: tl.constexpr,
                 ROUND: tl.constexpr, FEED: tl.constexpr, WIDE: tl.constexpr, TOLD: tl.constexpr):  # fmt: skip
    """The gradient of the state after each chunk, from the last to the first; a program as in `_forward`."""
    row, head = (tl.program_id(0) // H).to(tl.int64), tl.program_id(0) % H
    p, n = tl.program_id(1) * BP + tl.arange(0, BP), tl.arange(0, BN)
    dy += row * S * H * P + head * P + p[None, :]
    C += row * cb + head // share * N + n[None, :]
    dt += row * S * H + head
    run += row * S
    cell, inside = p[:, None] * N + n[None, :], (p < P)[:, None] & (n < N)[None, :]
    decay = tl.load(A + head)
    grad = tl.load(dlast + (row * H + head) * P * N + cell, mask=inside, other=0.0)
    for back in range(chunks):
        k = chunks - 1 - back
        t, d, past, sums, read, write, keep = _chunk(dt, run, decay, k * L, S, H, L, RUN)
        tl.store(ends + ((row * chunks + k) * H + head) * P * N + cell, grad, mask=inside)
        g = tl.load(dy + t[:, None] * H * P, mask=(t < S)[:, None] & (p < P)[None, :], other=0.0).to(WIDE)
        c = tl.load(C + t[:, None] * cs, mask=(t < S)[:, None] & (n < N)[None, :], other=0.0)
        grad = grad * keep + product(tl.trans(g * read[:, None]), c, ROUND, FEED, WIDE, TOLD)
    tl.store(dfirst + (row * H + head) * P * N + cell, grad, mask=inside)


@triton.jit
def _chunks_back(dy, x, dt, A, B, C, D, run, starts, ends, dx, ddt, dA, dB, dC, dD, xb, xs, bb, bs, cb, cs, S, H, G, share, each, chunks,
                 P: tl.constexpr, N: tl.constexpr, L: tl.constexpr, BP: tl.constexpr, BN: tl.constexpr, SKIP: tl.constexpr,
                 RUN: tl.constexpr, ROUND: tl.constexpr, FEED: tl.constexpr, WIDE: tl.constexpr, TOLD: tl.constexpr):  # fmt: skip
    """A program: one chunk of one row, `each` heads of one group; every gradient but the state's."""
    k, row, part = tl.program_id(0), tl.program_id(1).to(tl.int64), tl.program_id(2)  # part counts slices of groups
    group = part * each // share
    i, p, n = tl.arange(0, L), tl.arange(0, BP), tl.arange(0, BN)
    t = k * L + i
    wide = (t < S)[:, None] & (p < P)[None, :]
    narrow = (t < S)[:, None] & (n < N)[None, :]
    b = tl.load(B + row * bb + group * N + t[:, None] * bs + n[None, :], mask=narrow, other=0.0)
    c = tl.load(C + row * cb + group * N + t[:, None] * cs + n[None, :], mask=narrow, other=0.0)
    scores = product(c, tl.trans(b), ROUND, FEED, WIDE, TOLD)
    db, dc = tl.zeros((L, BN), WIDE), tl.zeros((L, BN), WIDE)
    cell, inside = p[:, None] * N + n[None, :], (p < P)[:, None] & (n < N)[None, :]
    for j in range(each):
        head = part * each + j
        decay = tl.load(A + head)
        t, d, past, sums, read, write, keep = _chunk(dt + row * S * H + head, run + row * S, decay, k * L, S, H, L, RUN)
        at = row * S * H * P + head * P + t[:, None] * H * P + p[None, :]
        u = tl.load(x + row * xb + head * P + t[:, None] * xs + p[None, :], mask=wide, other=0.0)
        g = tl.load(dy + at, mask=wide, other=0.0)
        tile = ((row * chunks + k) * H + head) * P * N + cell
        start = tl.load(starts + tile, mask=inside, other=0.0)
        end = tl.load(ends + tile, mask=inside, other=0.0)

        decays = tl.exp(tl.where(past, sums[:, None] - sums[None, :], float("-inf")))
        dw = product(g, tl.trans(u), ROUND, FEED, WIDE, TOLD)
        du = product(tl.trans(scores * decays * d[None, :]), g, ROUND, FEED, WIDE, TOLD)
        dscores = dw * decays * d[None, :]
        flow = dw * scores * decays  # times dt_j: what reaches i from j, weighed by dy
        dc += product(dscores, b, ROUND, FEED, WIDE, TOLD)
        db += product(tl.trans(dscores), c, ROUND, FEED, WIDE, TOLD)

        u, g = u.to(WIDE), g.to(WIDE)
        written = product(b, tl.trans(end), ROUND, FEED, WIDE, TOLD)  # [L,P]
        dc += product(g * read[:, None], start, ROUND, FEED, WIDE, TOLD)
        db += product(u * (write * d)[:, None], end, ROUND, FEED, WIDE, TOLD)
        du += written * (write * d)[:, None]
        dread = tl.sum(g * product(c, tl.trans(start), ROUND, FEED, WIDE, TOLD), 1) * read
        dwrite = tl.sum(u * written, 1) * write  # times dt: gradient of the log of the decay
        dkeep = tl.sum(start.to(WIDE) * end.to(WIDE)) * keep

        # Each log decay a_k scales what flows over step k: j < k <= i. Summed so, nothing large cancels.
        flow_in = flow * d[None, :]
        over = tl.cumsum(flow_in, 1) - flow_in  # [i,k]: from all j < k
        da = tl.sum(tl.where(i[:, None] >= i[None, :], over, 0.0), 0) + dkeep
        da += tl.sum(tl.where(past, dread[:, None], 0.0), 0)
        da += tl.sum(tl.where(past & (i[:, None] > i[None, :]), (dwrite * d)[None, :], 0.0), 1)
        tl.store(ddt + (row * S + t) * H + head, tl.sum(flow, 0) + dwrite + da * decay, mask=t < S)
        tl.store(dA + (row * chunks + k) * H + head, tl.sum(da * d))
        if SKIP:
            du += tl.load(D + head) * g
            tl.store(dD + (row * chunks + k) * H + head, tl.sum(g * u))
        tl.store(dx + at, du, mask=wide)
    slice_ = part % (share // each)
    at = ((slice_ * tl.num_programs(1) + row) * S * G + group) * N + t[:, None] * G * N + n[None, :]
    tl.store(dB + at, db, mask=narrow)
    tl.store(dC + at, dc, mask=narrow)


class _SSD(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, dt, A, B, C, D, state, run, length):
        (batch, steps, heads, width), (groups, n) = x.shape, B.shape[2:]
        x, B, C, dt = rows(x), rows(B), rows(C), dt.contiguous()
        run = None if run is None else run.contiguous()
        state = None if state is None else state.contiguous()
        chunks, keep = -(-steps // length), any(ctx.needs_input_grad)
        y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        starts = x.new_empty((batch, chunks, heads, width, n) if keep else 0)
        last = dt.new_empty(batch, heads, width, n)
        part = min(64, block(width))
        strides = *x.stride()[:2], *B.stride()[:2], *C.stride()[:2]
        _forward[batch * heads, triton.cdiv(width, part)](
            x, dt, A, B, C, A if D is None else D, dt if run is None else run, dt if state is None else state, y, starts, last, *strides,
            steps, heads, heads // groups, bound(chunks), width, n, length, part, block(n), D is not None, run is not None,
            state is not None, keep, *formats(x.dtype), num_warps=8, num_stages=2)  # fmt: skip
        ctx.save_for_backward(x, dt, A, B, C, D, run, starts)
        ctx.length, ctx.began = length, state is not None
        return y, last

    @staticmethod
    @once_differentiable
    def backward(ctx, dy, dlast):
        x, dt, A, B, C, D, run, starts = ctx.saved_tensors
        (batch, steps, heads, width), (groups, n), length = x.shape, B.shape[2:], ctx.length
        chunks, share = starts.shape[1], heads // groups
        dy, dlast = dy.contiguous(), dlast.contiguous()
        known = dt if run is None else run
        ends, dfirst = torch.empty_like(starts), torch.empty_like(dlast)
        part, told = min(64, block(width)), formats(x.dtype)
        _states_back[batch * heads, triton.cdiv(width, part)](
            dy, dt, A, C, known, dlast, ends, dfirst, *C.stride()[:2], steps, heads, share, bound(chunks), width, n, length, part, block(n),
            run is not None, *told, num_warps=8, num_stages=2)  # fmt: skip
        each = _heads_each(share, chunks * batch * groups)
        dx, ddt = torch.empty(x.shape, dtype=x.dtype, device=x.device), torch.empty_like(dt)
        dA, dD = (dt.new_empty(batch, chunks, heads) for _ in range(2))
        dB, dC = (dt.new_empty(share // each, batch, steps, groups, n) for _ in range(2))
        strides = *x.stride()[:2], *B.stride()[:2], *C.stride()[:2]
        _chunks_back[chunks, batch, heads // each](
            dy, x, dt, A, B, C, A if D is None else D, known, starts, ends, dx, ddt, dA, dB, dC, dD, *strides, steps, heads, groups, share,
            bound(each), chunks, width, n, length, block(width), block(n), D is not None, run is not None, *told,
            num_warps=8, num_stages=2)  # fmt: skip
        dB, dC = dB.sum(0).to(B.dtype), dC.sum(0).to(C.dtype)
        dD = None if D is None else dD.sum((0, 1))
        return dx, ddt, dA.sum((0, 1)), dB, dC, dD, dfirst if ctx.began else None, None, None


def _heads_each(share: int, programs: int) -> int:
    """How many heads of a group one program takes: as many as leave the GPU some 256 programs."""
    each = share
    while each % 2 == 0 and programs * (share // each) < 256:
        each //= 2
    return each
