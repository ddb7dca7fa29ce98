"""torch and torchaudio must be the same release, built alike: a wrong pair fails later, with a message nobody can read."""

from importlib.metadata import PackageNotFoundError, version

from slm.errors import SlmError


def check_torch() -> None:
    """SlmError unless torch and torchaudio are installed and match. Reads their metadata only, so it takes no time."""
    found = {}
    for package in ("torch", "torchaudio"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            raise SlmError(f"{package} is not installed; run: pip install -c constraints.txt -e .") from None
    torch, torchaudio = (installed.partition("+") for installed in found.values())  # release, "+", build
    # a CPU-only torch lacks libraries that torchaudio's CUDA build opens; other builds go together
    if torch[0] != torchaudio[0] or (torch[2] == "cpu") > (torchaudio[2] == "cpu"):
        raise SlmError(
            f"torch {found['torch']} and torchaudio {found['torchaudio']} do not match; "
            f"install one release and build of both, such as: pip install torch=={torchaudio[0]} torchaudio=={torchaudio[0]}"
        )
