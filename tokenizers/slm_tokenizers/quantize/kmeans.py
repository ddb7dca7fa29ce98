"""k-means: the nearest of K centroids, one unit a frame.

Hsu et al., 2021, "HuBERT", fits them on features of speech with scikit-learn's MiniBatchKMeans, with the settings below;
`Codebooks` of one level then speaks for it without the library, with the same units.

B batch, D width of a feature, T frames, M features to fit on, K centroids.
"""

import torch
from torch import Tensor

from slm.errors import SlmError
from slm_tokenizers.quantize.residual import Codebooks


def fit(features: Tensor, units: int, seed: int = 0, steps: int = 100, batch: int = 10_000) -> Codebooks:
    """features [M,D] -> Codebooks of one level: `units` centroids, fitted in up to `steps` passes over M in batches.

    Needs scikit-learn. SlmError if it is missing, on fewer features than units, or NaN.
    """
    if features.dim() != 2 or not features.is_floating_point() or not features.isfinite().all():
        raise SlmError(f"features are {features.dtype} of shape {list(features.shape)} but finite floats [M, D] are needed")
    if not 1 <= units <= len(features):
        raise SlmError(f"units is {units} but {len(features)} features allow 1 to {len(features)}")
    try:
        from sklearn.cluster import MiniBatchKMeans
    except ImportError:
        raise SlmError("k-means is fitted by scikit-learn, which is not installed: pip install scikit-learn") from None
    model = MiniBatchKMeans(
        n_clusters=units, init="k-means++", max_iter=steps, batch_size=batch, tol=0.0, max_no_improvement=100, n_init=20,
        reassignment_ratio=0.0, random_state=seed, compute_labels=False,
    )  # fmt: skip
    return of(torch.from_numpy(model.fit(features.detach().float().cpu().numpy()).cluster_centers_))


@torch.no_grad()
def of(centroids: Tensor) -> Codebooks:
    """centroids [K,D], however they were found -> Codebooks whose `encode` takes features [B,D,T] to units [B,1,T]."""
    books = Codebooks(1, *centroids.shape)
    books.embed.copy_(centroids[None])
    return books
