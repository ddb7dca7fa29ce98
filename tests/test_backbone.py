"""Contracts of the backbones: run at once == in chunks == step by step, rows and packed documents keep to themselves.

B batch   S steps   D width
"""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from slm.backbone.gated_conv import GatedConv
from slm.backbone.hybrid import Hybrid
from slm.backbone.mamba2 import Mamba2
from slm.backbone.rwkv import RWKV
from slm.backbone.state import batch, fork, leaves, load, reorder, save, unbatch
from slm.backbone.transformer import Transformer
from slm.errors import SlmError
from slm.nn.norm import RMSNorm

DIM = 16
CONFIGS = {
    "transformer": Transformer.Config(DIM, depth=2, heads=4),
    "transformer-gqa": Transformer.Config(DIM, depth=2, heads=4, kv_heads=2),
    "transformer-learned": Transformer.Config(DIM, depth=2, heads=4, form="gpt2", positions="learned", longest=2000),
    "transformer-sinusoidal": Transformer.Config(DIM, depth=2, heads=4, form="bert", positions="sinusoidal"),
    "transformer-alibi": Transformer.Config(DIM, depth=2, heads=4, kv_heads=2, positions="alibi"),
    "transformer-relative": Transformer.Config(DIM, depth=2, heads=4, positions="relative"),
    "transformer-none": Transformer.Config(DIM, depth=2, heads=4, positions="none"),
    "transformer-window": Transformer.Config(DIM, depth=2, heads=4, window=9),
    "mamba2": Mamba2.Config(DIM, depth=2, headdim=8, d_state=4, chunk=16),
    "mamba2-groups": Mamba2.Config(DIM, depth=2, headdim=8, d_state=4, groups=2, chunk=16),
    "gated-conv": GatedConv.Config(DIM, depth=2, kernel=6, share=0.75),
    "rwkv": RWKV.Config(DIM, depth=2),
    "hybrid": Hybrid.Config([
        Mamba2.Config(DIM, depth=1, headdim=8, d_state=4, chunk=16), RWKV.Config(DIM, depth=1),
        Transformer.Config(DIM, depth=1, heads=4, positions="alibi"), GatedConv.Config(DIM, depth=1),
    ]),
}  # fmt: skip
EARSHOT = {"transformer-window": 2 * 8, "gated-conv": 2 * 5}  # steps back that can be heard; all, where none is given


def lively(module: nn.Module) -> nn.Module:
    """Weights large enough that every path matters; at 0.02 a broken mixer would hide below the tolerance."""
    for name, parameter in module.named_parameters():
        if parameter.dim() >= 2 and "time_mix" not in name:
            nn.init.normal_(parameter, std=0.4)
    return module.eval()


@pytest.fixture(params=CONFIGS)
def backbone(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    built = lively(CONFIGS[request.param].build())
    built.earshot = EARSHOT.get(request.param, 10_000)
    return built


def close(a: Tensor, b: Tensor, atol: float = 1e-4) -> None:
    torch.testing.assert_close(a, b, atol=atol, rtol=0)


def in_chunks(backbone: nn.Module, x: Tensor, prefix: int, chunk: int) -> Tensor:
    state, pieces = backbone.start(len(x)), []
    for piece in [x[:, :prefix]] * (prefix > 0) + list(x[:, prefix:].split(chunk, 1)):
        y, state = backbone(piece, state)
        pieces.append(y)
    return torch.cat(pieces, 1)


@torch.no_grad()
@pytest.mark.parametrize("chunk, prefix, steps", [(1, 0, 80), (1, 70, 90), (7, 5, 100), (64, 0, 150), (64, 70, 150), (1000, 5, 1010)])
def test_a_backbone_run_in_chunks_is_the_backbone_run_at_once(backbone: nn.Module, chunk: int, prefix: int, steps: int) -> None:
    x = torch.randn(1 if chunk == 1000 else 2, steps, DIM)
    whole, none = backbone(x)
    assert none is None
    close(in_chunks(backbone, x, prefix, chunk), whole)


@torch.no_grad()
def test_a_ragged_batch_is_each_row_alone(backbone: nn.Module) -> None:
    calls = [torch.tensor([3, 0, 40, 1]), torch.tensor([20, 2, 0, 9]), torch.tensor([1, 1, 1, 1]), torch.tensor([1, 1, 1, 1]),
             torch.tensor([6, 66, 6, 2])]  # fmt: skip
    rows = [torch.randn(int(sum(c[b] for c in calls)), DIM) for b in range(4)]
    alone = [backbone(row[None])[0][0] for row in rows]
    state, seen = backbone.start(4), torch.zeros(4, dtype=torch.long)
    for lengths in calls:
        x = 100 * torch.randn(4, int(lengths.max()), DIM)  # loud padding: a leak cannot hide
        for b, n in enumerate(lengths.tolist()):
            x[b, :n] = rows[b][seen[b] : seen[b] + n]
        full = bool((lengths == x.shape[1]).all())
        y, state = backbone(x, state, lengths=None if full else lengths)
        assert y.isfinite().all()
        for b, n in enumerate(lengths.tolist()):
            close(y[b, :n], alone[b][seen[b] : seen[b] + n])
        seen += lengths


@torch.no_grad()
def test_padding_without_a_state_changes_no_real_step(backbone: nn.Module) -> None:
    x, lengths = torch.randn(2, 40, DIM), torch.tensor([40, 11])
    y, _ = backbone(x, lengths=lengths)
    close(y[1, :11], backbone(x[1:, :11])[0][0])


@torch.no_grad()
def test_a_state_can_be_forked_reordered_batched_and_parted(backbone: nn.Module) -> None:
    x, tails = torch.randn(3, 20, DIM), torch.randn(4, 9, DIM)
    _, state = backbone(x, backbone.start(3), lengths=torch.tensor([20, 12, 20]))
    rows = torch.tensor([2, 0, 0, 1])
    want = [backbone(torch.cat([x[r, : (20, 12, 20)[r]], tail])[None])[0][0, -9:] for r, tail in zip(rows.tolist(), tails)]
    beams = reorder(state, rows)
    y, _ = backbone(tails, beams)
    close(y, torch.stack(want))
    _, branch = backbone(tails[:3, :4], fork(state))  # neither a fork nor the beams touch what they came from, nor it them
    backbone(100 * tails[:3, :4], fork(state))
    backbone(100 * tails[:3, :4], state)
    y, _ = backbone(tails[:3, 4:], branch)
    close(y[2], backbone(torch.cat([x[2], tails[2]])[None])[0][0, -5:])
    single = unbatch(state)
    y, _ = backbone(tails[1:2], single[0])
    close(y[0], want[1])
    fresh = backbone(torch.randn(1, 90, DIM), backbone.start(1))[1]  # a state of another length and capacity
    y, _ = backbone(torch.cat([tails[:1], tails[3:], tails[:1]]), batch([single[2], single[1], fresh]))
    close(y[:2], torch.stack([want[0], want[3]]))


@torch.no_grad()
def test_a_state_outlives_its_process(backbone: nn.Module, tmp_path: Path) -> None:
    x, tail = torch.randn(3, 20, DIM), torch.randn(3, 5, DIM)
    _, state = backbone(x, backbone.start(3), lengths=torch.tensor([20, 12, 20]))
    save(state, tmp_path / "state.safetensors")
    loaded = load(tmp_path / "state.safetensors", backbone.start(1))
    for (name, a, _), (other, b, _) in zip(leaves(loaded), leaves(state), strict=True):
        assert name == other and torch.equal(a, b)
    assert torch.equal(backbone(tail, loaded)[0], backbone(tail, state)[0])


def test_the_state_of_another_backbone_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    save(CONFIGS["mamba2"].build().start(2), path)
    for name in ("mamba2-groups", "rwkv", "transformer"):
        with pytest.raises(SlmError, match="another backbone"):
            load(path, CONFIGS[name].build().start(1))
    path.write_bytes(b"not a state")
    with pytest.raises(SlmError, match="holds no state"):
        load(path, CONFIGS["mamba2"].build().start(1))


@torch.no_grad()
def test_a_step_is_heard_by_all_later_ones_in_earshot_and_no_other(backbone: nn.Module) -> None:
    x = torch.randn(2, 60, DIM)
    changed = x.clone()
    changed[:, 23] = torch.randn(2, DIM)
    heard = (backbone(x)[0] - backbone(changed)[0]).abs().amax((0, 2)) > 1e-6
    assert heard.nonzero()[:, 0].tolist() == list(range(23, min(60, 24 + backbone.earshot)))


BOUNDS = (0, 5, 6, 40, 75)


def packed() -> tuple[Tensor, Tensor]:
    """x [2,75,D] and documents [2,75]; ids fall and come back, a boundary inside chunks, a document of one step."""
    documents = torch.cat([torch.full((end - begin,), number) for begin, end, number in zip(BOUNDS, BOUNDS[1:], (7, 2, 3, 7))])
    return torch.randn(2, 75, DIM), documents.expand(2, -1)


@torch.no_grad()
def test_a_packed_document_is_the_document_alone(backbone: nn.Module) -> None:
    x, documents = packed()
    y, _ = backbone(x, documents=documents)
    for begin, end in zip(BOUNDS, BOUNDS[1:]):
        close(y[:, begin:end], backbone(x[:, begin:end])[0])


def test_a_packed_document_hears_nothing_of_the_others_bit_for_bit(backbone: nn.Module) -> None:
    x, documents = packed()
    for begin, end in zip(BOUNDS, BOUNDS[1:]):
        other = 10 * torch.randn_like(x)
        other[:, begin:end] = x[:, begin:end]
        x.requires_grad_()
        y = backbone(x, documents=documents)[0][:, begin:end]
        assert torch.equal(y, backbone(other, documents=documents)[0][:, begin:end])
        (grad,) = torch.autograd.grad((y * torch.randn_like(y)).sum(), x)
        assert not grad[:, :begin].any() and not grad[:, end:].any() and grad[:, begin:end].any()
        x = x.detach()


def gradients(backbone: nn.Module, x: Tensor, y: Tensor) -> list[Tensor]:
    """Of a sum that weighs every output differently, in all parameters and in x."""
    weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype)
    return list(torch.autograd.grad((y * weight).sum(), [x, *backbone.parameters()]))


def test_gradients_are_the_same_at_once_in_chunks_and_in_float64(backbone: nn.Module) -> None:
    x = torch.randn(2, 40, DIM, requires_grad=True)
    single = gradients(backbone, x, backbone(x)[0])
    backbone.double()
    x = x.detach().double().requires_grad_()
    whole = gradients(backbone, x, backbone(x)[0])
    chunks = gradients(backbone, x, in_chunks(backbone, x, 5, 13))
    for a, b, c in zip(single, whole, chunks, strict=True):
        assert b.any()
        close(c, b, atol=1e-9 * max(1, b.abs().max().item()))
        close(a.double(), b, atol=2e-4 * max(1, b.abs().max().item()))


def test_gradients_reach_back_through_a_ragged_state(backbone: nn.Module) -> None:
    backbone.double()
    x = torch.randn(2, 30, DIM, dtype=torch.float64, requires_grad=True)
    alone = gradients(backbone, x, torch.cat([backbone(x[:1])[0], backbone(torch.cat([x[1:, :8], x[1:, 20:]], 1))[0]], 1))
    first, state = backbone(x[:, :20], backbone.start(2), lengths=torch.tensor([20, 8]))
    second, _ = backbone(x[:, 20:], state)
    y = torch.cat([first[:1], second[:1], first[1:, :8], second[1:]], 1)
    for a, b in zip(gradients(backbone, x, y), alone, strict=True):
        close(a, b, atol=1e-9 * max(1, b.abs().max().item()))


def test_a_model_in_bf16_runs_with_and_without_a_state(backbone: nn.Module) -> None:
    x = torch.randn(2, 12, DIM)
    exact, _ = backbone(x)
    backbone.bfloat16()
    state, pieces = backbone.start(2), []
    with torch.no_grad():
        for piece in x.bfloat16().split([8, 1, 3], 1):
            y, state = backbone(piece, state)
            pieces.append(y)
        for y in (torch.cat(pieces, 1), backbone(x.bfloat16())[0]):
            assert y.dtype == torch.bfloat16
            assert (y - exact).square().mean().sqrt() < 0.1 * exact.square().mean().sqrt()


def test_documents_and_a_state_exclude_each_other(backbone: nn.Module) -> None:
    x, documents = packed()
    with pytest.raises(SlmError, match="documents"):
        backbone(x, backbone.start(2), documents=documents)


def test_bf16_autocast_stays_finite_and_near_float32(backbone: nn.Module) -> None:
    x = torch.randn(2, 70, DIM)
    exact, _ = backbone(x)
    with torch.autocast("cpu", torch.bfloat16):
        y, _ = backbone(x)
        y.float().square().mean().backward()
    assert all(p.grad.isfinite().all() for p in backbone.parameters())
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        state, pieces = backbone.start(2), []
        for piece in x.split([40, 1, 1, 28], 1):
            z, state = backbone(piece, state)
            pieces.append(z)
    for z in (y, torch.cat(pieces, 1)):
        assert (z - exact).square().mean().sqrt() < 0.1 * exact.square().mean().sqrt()


def test_output_projections_start_smaller_the_deeper_the_stack() -> None:
    for config, name in (
        (Transformer.Config(128, 8, 4), "attention.out"),
        (Transformer.Config(128, 8, 4, form="gpt2", memory=8), "cross.out"),
        (Mamba2.Config(128, 8), "mixer.out_proj"),
        (GatedConv.Config(128, 8), "fc2"),
        (RWKV.Config(128, 8), "feed_forward.value"),
    ):
        weight = config.build().get_parameter(f"layers.3.{name}.weight")
        assert weight.std().item() == pytest.approx(0.02 / math.sqrt(16), rel=0.1)


def test_parts_of_a_hybrid_share_one_width_and_one_norm() -> None:
    with pytest.raises(SlmError, match="one width"):
        Hybrid.Config([Mamba2.Config(64), RWKV.Config(32)]).build()
    names = [name for name, _ in CONFIGS["hybrid"].build().named_parameters() if name.count(".") < 4 and "norm" in name]
    assert names == ["norm.weight"]


@pytest.mark.parametrize("dtype, atol", [(torch.float32, 1e-6), (torch.bfloat16, 0.04)])
def test_a_norm_is_the_same_with_and_without_gradients(dtype: torch.dtype, atol: float) -> None:
    norm = RMSNorm(64, eps=0.1)
    nn.init.normal_(norm.weight)
    x = torch.randn(5, 64).to(dtype)
    trained = norm(x)
    want = x.float() / (x.float().square().mean(-1, keepdim=True) + 0.1).sqrt() * norm.weight
    with torch.no_grad():
        fused = norm(x)
    assert trained.dtype == fused.dtype == dtype
    close(trained.float(), want, atol)
    close(fused.float(), want, atol)
