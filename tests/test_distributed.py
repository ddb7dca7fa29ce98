"""Two processes train as one process that takes two batches a step."""

import os
import subprocess
import sys
from pathlib import Path

from slm.train.checkpoint import latest, read

ROOT = Path(__file__).parent.parent
SCRIPT = (
    "import sys; from slm.train.run import train_recipe; import torch; torch.set_num_threads(1);"
    "train_recipe(sys.argv[1], 'semantic', sys.argv[2], ['train.semantic.precision=fp32', *sys.argv[3:]], small=True, quiet=True)"
)


def test_two_processes_equal_one_that_accumulates(tmp_path):
    (tmp_path / "train.py").write_text(SCRIPT)
    recipe = str(ROOT / "recipes/zero_shot/default.py")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str(ROOT / p) for p in ("", "tokenizers", "vocoders")),
        "OMP_NUM_THREADS": "1",
    }
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    two = subprocess.Popen([*torchrun, tmp_path / "train.py", recipe, tmp_path / "two"], env=environment, stderr=subprocess.PIPE, text=True)
    one = subprocess.Popen(
        [sys.executable, tmp_path / "train.py", recipe, tmp_path / "one", "train.semantic.accumulate=2"], env=environment
    )
    assert two.wait() == 0, two.stderr.read()[-2000:]
    assert one.wait() == 0
    a, b = (read(latest(tmp_path / name / "semantic") / "model.safetensors") for name in ("one", "two"))
    apart = max(float((a[k] - b[k]).abs().max()) for k in a)
    assert apart < 1e-5, apart
