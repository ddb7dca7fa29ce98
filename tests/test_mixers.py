"""RWKV gives the numbers of transformers' RWKV, and the gated convolution those of its formula.

B batch   S steps   D width
"""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slm.backbone.gated_conv import GatedConv
from slm.backbone.hybrid import Hybrid
from slm.backbone.mamba2 import Mamba2
from slm.backbone.rwkv import RWKV
from slm.backbone.ssd import runs
from slm.backbone.transformer import Transformer
from slm.backbone.wkv import wkv
from slm.config import change, from_dict, to_dict
from slm.errors import SlmError
from slm.stage.lm import LM, Stream
from slm.stream.part import Part


def close(a: Tensor, b: Tensor, atol: float = 1e-4) -> None:
    torch.testing.assert_close(a, b, atol=atol, rtol=0)


def lively(module: nn.Module) -> nn.Module:
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.4)
    return module.eval()


@pytest.fixture(scope="module")
def rwkv() -> tuple[nn.Module, RWKV]:
    """transformers' RWKV with a head, and ours with its weights."""
    from transformers import RwkvConfig, RwkvForCausalLM

    torch.manual_seed(0)
    sizes = {"vocab_size": 11, "hidden_size": 24, "attention_hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3}
    reference = lively(RwkvForCausalLM(RwkvConfig(**sizes)))
    ours = RWKV.Config(24, 3, mlp=40).build().eval()
    weights = {name.replace("blocks.", "layers.").replace("ln_out", "norm"): w for name, w in reference.rwkv.state_dict().items()}
    weights.pop("embeddings.weight")
    ours.load_state_dict(weights)
    return reference, ours


@torch.no_grad()
@pytest.mark.parametrize("chunk", [1, 7, 45])
def test_rwkv_is_the_reference_rwkv(rwkv: tuple[nn.Module, RWKV], chunk: int) -> None:
    reference, ours = rwkv
    ids = torch.randint(11, (2, 45))
    x = reference.rwkv.embeddings(ids)
    want = reference(ids)
    close(ours(x)[0], reference.rwkv(ids).last_hidden_state)
    state, pieces = ours.start(2), []
    for piece in x.split(chunk, 1):
        y, state = ours(piece, state)
        pieces.append(y)
    close(reference.head(torch.cat(pieces, 1)), want.logits)
    for layer, past in enumerate(state.layers):  # the reference keeps the sums under another exponent
        scale = (past.top - want.state[4][..., layer]).exp()
        close(past.denominator * scale, want.state[3][..., layer])
        close(past.numerator * scale, want.state[2][..., layer], atol=1e-3)


def test_rwkv_has_the_gradients_of_the_reference(rwkv: tuple[nn.Module, RWKV]) -> None:
    reference, ours = rwkv
    x = torch.randn(2, 19, 24, requires_grad=True)
    weight = torch.randn(2, 19, 24)
    (want,) = torch.autograd.grad((reference.rwkv(inputs_embeds=x, use_cache=False).last_hidden_state * weight).sum(), x)
    (got,) = torch.autograd.grad((ours(x)[0] * weight).sum(), x)
    close(got, want, atol=1e-4 * want.abs().max().item())


def recurrence(k: Tensor, v: Tensor, w: Tensor, u: Tensor) -> Tensor:
    """The definition, sum by sum."""
    y = []
    for t in range(k.shape[1]):
        age = torch.arange(t - 1, -1, -1, dtype=k.dtype)[:, None]
        weight = torch.cat([(k[:, :t] - age * w), (k[:, t] + u)[:, None]], 1).softmax(1)
        y.append((weight * v[:, : t + 1]).sum(1))
    return torch.stack(y, 1)


@pytest.mark.parametrize("loud", [1.0, 60.0])
def test_wkv_is_its_definition_in_values_and_gradients(loud: float) -> None:
    torch.manual_seed(0)
    k, v = torch.randn(2, 21, 5, dtype=torch.float64), torch.randn(2, 21, 5, dtype=torch.float64)
    k = (k if loud == 1 else loud * k.sign()).requires_grad_()
    w, u = torch.rand(5, dtype=torch.float64) + 0.01, torch.randn(5, dtype=torch.float64)
    inputs = (k, v.requires_grad_(), w.requires_grad_(), u.requires_grad_())
    weight = torch.randn(2, 21, 5, dtype=torch.float64)
    want, got = recurrence(*inputs), wkv(*inputs)[0]
    close(got, want, atol=1e-12)
    for a, b in zip(torch.autograd.grad((got * weight).sum(), inputs), torch.autograd.grad((want * weight).sum(), inputs), strict=True):
        close(a, b, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_key_of_wkv_is_too_large(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    k = (60 * torch.randn(2, 50, 4, dtype=dtype).sign()).requires_grad_()
    v, w, u = (
        torch.randn(2, 50, 4, dtype=dtype),
        torch.tensor([1e-4, 0.1, 3, 20], dtype=dtype),
        torch.tensor([60.0, -60, 0, 1], dtype=dtype),
    )
    run = runs(torch.arange(50).div(9, rounding_mode="floor").expand(2, -1))
    for y, sums in (wkv(k, v, w, u), wkv(k, v, w, u, run=run)):
        assert y.isfinite().all() and (y.abs() <= v.abs().amax(1, keepdim=True) + 1e-5).all()
        assert all(s.isfinite().all() for s in sums)
        assert torch.autograd.grad(y.sum(), k)[0].isfinite().all()
    close(wkv(k, v, w, u)[0].double(), recurrence(*(t.double() for t in (k, v, w, u))), atol=1e-5)


def test_rwkv_starts_in_the_published_ranges() -> None:
    attention = RWKV.Config(64, 4).build().layers[0].attention
    assert attention.time_decay[0] == -5 and attention.time_decay[-1] == 3 and (attention.time_decay.diff() > 0).all()
    assert attention.time_first[:3].tolist() == pytest.approx([math.log(0.3), math.log(0.3) + 0.5, math.log(0.3) - 0.5])


def formula(block: nn.Module, x: Tensor, before: int, after: int) -> Tensor:
    """Equation 2 of MambaOut for one layer, by torch's own convolution."""
    gate, kept, heard = block.fc1(block.norm(x)).split([block.inner, block.inner - block.channels, block.channels], -1)
    heard = F.conv1d(F.pad(heard.mT, (before, after)), block.conv.weight, block.conv.bias, groups=block.channels).mT
    return x + block.fc2(F.gelu(gate) * torch.cat([kept, heard], -1))


@torch.no_grad()
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("share", [1.0, 0.5])
def test_a_gated_convolution_is_its_formula(causal: bool, share: float) -> None:
    torch.manual_seed(0)
    model = lively(GatedConv.Config(12, 2, kernel=7, share=share, causal=causal).build())
    x = torch.randn(2, 20, 12)
    want = x
    for block in model.layers:
        want = formula(block, want, *((6, 0) if causal else (3, 3)))
    close(model(x)[0], model.norm(want))


@torch.no_grad()
def test_a_bidirectional_gated_convolution_hears_both_ways_and_no_padding() -> None:
    torch.manual_seed(0)
    model = lively(GatedConv.Config(12, 2, kernel=7, causal=False).build())
    x, lengths = torch.randn(2, 30, 12), torch.tensor([30, 12])
    close(model(x, lengths=lengths)[0][1, :12], model(x[1:, :12])[0][0])
    documents = torch.tensor([0] * 11 + [1] * 2 + [0] * 17).expand(2, -1)
    y, _ = model(x, documents=documents)
    for begin, end in ((0, 11), (11, 13), (13, 30)):
        close(y[:, begin:end], model(x[:, begin:end])[0])
    changed = x.clone()
    changed[:, 15] = torch.randn(2, 12)
    heard = (model(changed)[0] - model(x)[0]).abs().amax((0, 2)) > 1e-6
    assert heard.nonzero()[:, 0].tolist() == list(range(9, 22))


@pytest.mark.parametrize("config", [
    Transformer.Config(16, 1, 2, causal=False),
    GatedConv.Config(16, 1, causal=False),
    Hybrid.Config([Mamba2.Config(16, 1, headdim=8), GatedConv.Config(16, 1, causal=False)]),
])  # fmt: skip
def test_what_hears_the_future_is_no_language_model(config: object) -> None:
    with pytest.raises(SlmError, match="future"):
        config.build().start(1)
    with pytest.raises(SlmError, match="causal"):
        LM.Config([Part("semantic")], config).build({"semantic": Stream(card=5)})


@pytest.mark.parametrize("config", [
    GatedConv.Config(16, 1, kernel=0), GatedConv.Config(16, 1, kernel=4, causal=False), GatedConv.Config(16, 1, share=3.0), Hybrid.Config(),
])  # fmt: skip
def test_an_impossible_mixer_is_refused(config: object) -> None:
    with pytest.raises(SlmError):
        config.build()


def test_every_mixer_can_be_set_from_the_command_line_and_stored() -> None:
    lm = LM.Config([Part("semantic")], Transformer.Config(16, 1, 2))
    for text in (
        "GatedConv.Config(16, 1, causal=True)",
        "RWKV.Config(16, depth=1)",
        'Transformer.Config(16, 1, 2, positions="alibi", window=8)',
    ):
        changed = change(lm, f"backbone={text}")
        assert from_dict(to_dict(changed)) == changed
        assert set(changed.build({"semantic": Stream(card=5)}).loss({"semantic": [torch.arange(5)[None]]})) == {"semantic"}
    hybrid = LM.Config([Part("semantic")], Hybrid.Config([RWKV.Config(16, 1), Transformer.Config(16, 1, 2)]))
    assert from_dict(to_dict(hybrid)) == hybrid
