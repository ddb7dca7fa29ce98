"""With the door to the kernels open, whole models run on them and stay what they are: values, states and gradients.

As in test_kernels.py, Triton's interpreter runs the kernels in another process, once for all tests.

B batch   S steps   D width
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from slm import kernels

ROOT = Path(__file__).resolve().parent.parent
needs_triton = pytest.mark.skipif(not kernels.installed(), reason="needs Triton")

COMPARE = """
import json
import torch
from slm.verify import prepare
prepare()
from slm import kernels
from slm.backbone.mamba2 import Mamba2
from slm.backbone.state import leaves
from slm.backbone.transformer import Transformer
from slm.nn.surprise import surprise
from slm_tokenizers.quantize.residual import Codebooks
import slm.backbone.ssd
import slm.kernels.conv, slm.kernels.cross_entropy, slm.kernels.norm, slm.kernels.rope, slm.kernels.rvq, slm.kernels.ssd, slm.kernels.step

called = {}

def counted(name, function):
    def run(*arguments, **named):
        called[name] = called.get(name, 0) + 1
        return function(*arguments, **named)
    return run

for module, names in {"conv": ["conv_silu"], "cross_entropy": ["cross_entropy"], "norm": ["rms_norm"], "rope": ["rotate"],
                      "rvq": ["search"], "ssd": ["ssd"], "step": ["step"]}.items():
    for name in names:
        place = getattr(slm.kernels, module)
        setattr(place, name, counted(module, getattr(place, name)))

CONFIGS = {"mamba2": Mamba2.Config(8, 2, headdim=4, d_state=3, groups=2, chunk=16),
           "transformer": Transformer.Config(8, 2, 2, qk_norm=True, kv_heads=1)}

def trained(model, x, documents=None):
    x = x.clone().requires_grad_()
    y, _ = model(x, documents=documents)
    weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y)
    return [y.detach(), *torch.autograd.grad((y * weight).sum(), [x, *model.parameters()])]

@torch.no_grad()
def chunked(model, x):
    state, pieces = model.start(len(x)), []
    for piece, lengths in ((x[:, :9], [9, 4]), (x[:, 9:10], None), (x[:, 10:11], [1, 0]), (x[:, 11:], None)):
        y, state = model(piece, state, None if lengths is None else torch.tensor(lengths))
        real = torch.ones(y.shape[:2], dtype=torch.bool) if lengths is None else torch.arange(y.shape[1]) < torch.tensor(lengths)[:, None]
        pieces.append(y * real[..., None])
    return pieces + [leaf for name, leaf, grows in leaves(state) if not grows]

@torch.no_grad()
def stepped(model, x):
    state = model.start(len(x))
    return [model.step(row, state) for row in x[:, :3].unbind(1)] + [leaf for _, leaf, _ in leaves(state)]

def losses(*_):
    torch.manual_seed(3)
    scores, target = torch.randn(6, 11, requires_grad=True), torch.randint(0, 11, (6,))
    total = surprise(scores, target, 0.1)
    return [total.detach(), torch.autograd.grad(total, scores)[0]]

def searched(*_):
    torch.manual_seed(4)
    return [Codebooks(3, 40, 12).encode(torch.randn(2, 12, 20)).double()]

def apart(got, want):
    assert len(got) == len(want)
    return max(((a.double() - b.double()).abs().max() / b.double().abs().max().clamp(min=1e-9)).item() for a, b in zip(got, want))

found = {}

def race(name, way, function, *arguments):
    with kernels.use(False):
        called.clear()
        want = function(*arguments)
        plain = dict(called)
    with kernels.use(True):
        got = function(*arguments)
    found[f"{name} {way}"] = {"apart": apart(got, want), "plain": plain, "called": dict(called)}

documents = torch.tensor([7] * 5 + [2] + [3] * 14).expand(2, -1)
for name, config in CONFIGS.items():
    torch.manual_seed(0)
    model, x = config.build().double().eval(), torch.randn(2, 20, 8).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4) if parameter.dim() >= 2 else torch.nn.init.uniform_(parameter, 0.5, 1.5)
    race(name, "trained", trained, model, x)
    race(name, "packed", trained, model, x, documents)
    race(name, "chunked", chunked, model, x)
    race(name, "stepped", stepped, model, x)
    if name == "mamba2":
        held, slm.backbone.ssd.LARGEST = slm.backbone.ssd.LARGEST, 4 * 3 - 1
        race(name, "of a larger state", trained, model, x)
        slm.backbone.ssd.LARGEST = held
race("surprise", "trained", losses)
race("codebooks", "searched", searched)
print(json.dumps(found))
"""
# What is called where, and how often in two layers with (mamba2) 3 or (transformer) 9 norms in all.
CALLS = {
    "mamba2 trained": {"ssd": 2, "conv": 2, "norm": 5},
    "mamba2 packed": {"ssd": 2, "conv": 2, "norm": 5},
    "mamba2 chunked": {"ssd": 4, "conv": 4, "step": 4, "norm": 20},
    "mamba2 of a larger state": {"conv": 2, "norm": 5},
    "mamba2 stepped": {"step": 6, "norm": 15},
    "transformer trained": {"rope": 2, "norm": 9},
    "transformer packed": {"rope": 2, "norm": 9},
    "transformer chunked": {"rope": 8, "norm": 36},
    "transformer stepped": {"rope": 6, "norm": 27},
    "surprise trained": {"cross_entropy": 1},
    "codebooks searched": {"rvq": 1},
}


@pytest.fixture(scope="module")
def found() -> dict[str, dict]:
    """way -> how far the kernels' results are from the plain ones, and which kernels were called how often."""
    paths = os.pathsep.join(str(ROOT / folder) for folder in ("", "tokenizers"))
    told = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, "-c", COMPARE], cwd=ROOT, env=told, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@needs_triton
@pytest.mark.parametrize("way", CALLS)
def test_a_model_on_kernels_gives_the_plain_values_and_gradients(found: dict[str, dict], way: str) -> None:
    assert found[way]["apart"] <= (0 if way.startswith("codebooks") else 1e-6 if way.startswith("surprise") else 1e-9)


@needs_triton
@pytest.mark.parametrize("way", CALLS)
def test_the_kernels_are_what_was_called(found: dict[str, dict], way: str) -> None:
    assert found[way]["called"] == CALLS[way] and found[way]["plain"] == {}


def test_on_a_cpu_no_model_reaches_for_triton() -> None:
    code = (
        "import sys, torch\n"
        "from slm.backbone.mamba2 import Mamba2\n"
        "from slm.backbone.transformer import Transformer\n"
        "for config in (Mamba2.Config(8, 1, headdim=4, d_state=3), Transformer.Config(8, 1, 2)):\n"
        "    model = config.build()\n"
        "    model(torch.zeros(1, 3, 8))[0].sum().backward()\n"
        "    model.step(torch.zeros(1, 8), model.start(1))\n"
        "print([name for name in sys.modules if name == 'triton.language' or name.startswith('slm.kernels.')])\n"
    )
    told = os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=told, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr
