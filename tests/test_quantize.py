"""Quantisers give the ids of those who published them: each beside a reference implementation with the same weights.

B batch, D width of a latent, T frames, Q levels, G groups.
"""

import pytest
import torch
from torch import Tensor

from slm.errors import SlmError
from slm_tokenizers.quantize import kmeans
from slm_tokenizers.quantize.finite import Finite, LearnedFinite
from slm_tokenizers.quantize.grouped import Groups, LearnedGroups
from slm_tokenizers.quantize.gumbel import Product
from slm_tokenizers.quantize.residual import Codebooks
from slm_tokenizers.quantize.search import nearest


def latents(dim: int, frames: int, batch: int = 2) -> Tensor:
    return torch.randn(batch, dim, frames, generator=torch.Generator().manual_seed(frames))


def by_the_formula(books: Codebooks, z: Tensor) -> Tensor:
    """The obvious twin of Codebooks.encode."""
    rest, codes = z.transpose(1, 2), []
    for embed in books.embed:
        codes.append(nearest(rest, embed))
        rest = rest - torch.nn.functional.embedding(codes[-1], embed)
    return torch.stack(codes, dim=1)


def residual_books(n_q: int, card: int, dim: int) -> Codebooks:
    torch.manual_seed(0)
    books = Codebooks(n_q, card, dim)
    books.embed.mul_(0.8 ** torch.arange(n_q).view(-1, 1, 1))
    return books


@pytest.mark.parametrize("frames", [1, 7, 75, 600])
def test_the_fast_search_finds_the_ids_of_the_formula_and_of_the_library(frames):
    from vector_quantize_pytorch import ResidualVQ

    books, z = residual_books(8, 1024, 128), latents(128, frames)
    library = ResidualVQ(dim=128, num_quantizers=8, codebook_size=1024, kmeans_init=False, rotation_trick=False).eval()
    for layer, embed in zip(library.layers, books.embed):
        layer._codebook.embed.copy_(embed[None])
    codes = books.encode(z)
    with torch.no_grad():
        assert torch.equal(codes, library(z.transpose(1, 2))[1].transpose(1, 2))
    assert torch.equal(codes, by_the_formula(books, z)) and codes.shape == (2, 8, frames)
    assert torch.equal(codes, torch.cat([books.encode(row[None]) for row in z]))


def test_near_ties_and_twins_fall_as_in_the_formula():
    """For vectors much longer than the entries the formula rounds differences away and takes the first: so must the search."""
    books, z = residual_books(1, 64, 16), latents(16, 300) * 300
    books.embed.mul_(0.0005)
    books.embed[:, 5] = books.embed[:, 4]
    codes = books.encode(z)
    assert torch.equal(codes, by_the_formula(books, z)) and codes.unique().numel() > 30 and not (codes == 5).any()
    assert (torch.einsum("bdt,cd->btc", z, books.embed[0]).argmax(-1) != codes[:, 0]).float().mean() > 0.02


def test_the_search_sees_new_codebooks_however_they_come():
    books, z = residual_books(2, 64, 16), latents(16, 50)
    before = books.encode(z)
    books.embed.mul_(0.5)
    assert not torch.equal(books.encode(z), before) and torch.equal(books.encode(z), by_the_formula(books, z))
    books.load_state_dict({"embed": torch.randn(2, 64, 16)})
    assert torch.equal(books.encode(z), by_the_formula(books, z))
    books.embed = torch.randn(2, 64, 16)
    assert torch.equal(books.encode(z), by_the_formula(books, z))
    with torch.inference_mode():
        other = Codebooks(2, 64, 16)
        other.encode(z)
        other.embed.mul_(0.3)
        assert torch.equal(other.encode(z), by_the_formula(other, z))


def test_levels_can_be_decoded_from_any_on():
    books = residual_books(4, 32, 8)
    codes = books.encode(latents(8, 20))
    assert torch.allclose(books.decode(codes[:, :1]) + books.decode(codes[:, 1:], first=1), books.decode(codes), atol=1e-6)


def test_groups_have_the_ids_and_latents_of_the_library():
    learned, z = LearnedGroups(groups=2, n_q=3, card=16, dim=12), latents(12, 200)
    learned.train()
    for _ in range(3):
        learned(z)
    learned.eval()
    with torch.no_grad():
        theirs = learned(z)
    groups = learned.finished()
    codes = groups.encode(z)
    assert codes.shape == (2, 6, 200) and torch.equal(codes, theirs.codes) and codes.unique().numel() == 16
    assert torch.allclose(groups.decode(codes), theirs.latent, atol=1e-5)
    first = torch.cat([g.decode(codes[:, 3 * i : 3 * i + 1]) for i, g in enumerate(groups.groups)], dim=1)
    assert torch.allclose(first, theirs.first, atol=1e-5)


def test_grouped_residual_quantisation_learns():
    torch.manual_seed(0)
    learned, z = LearnedGroups(groups=2, n_q=2, card=16, dim=8), latents(8, 400)
    encoder = torch.nn.Conv1d(8, 8, 1)
    q = learned(encoder(z))
    (q.commitment + (q.latent - z).pow(2).mean()).backward()
    assert encoder.weight.grad.abs().sum() > 0
    assert (learned.eval()(encoder(z)).latent - encoder(z)).pow(2).mean() < 0.5 * encoder(z).var()


@pytest.mark.parametrize(("sizes", "dim"), [((8, 5, 5), None), ((8, 6, 5), 16), ((3, 4, 7, 5), 10), ((7, 5, 5, 5, 5), 64)])
def test_finite_has_the_ids_and_latents_of_the_library(sizes, dim):
    torch.manual_seed(1)
    learned = LearnedFinite(sizes, dim)
    z = latents(dim or len(sizes), 500) * 3
    theirs, finite = learned(z), learned.finished()
    codes = finite.encode(z)
    assert torch.equal(codes, theirs.codes) and codes.shape == (2, 1, 500) and codes.unique().numel() > finite.card / 10
    assert torch.allclose(finite.decode(codes), theirs.latent, atol=1e-6)
    every = torch.arange(finite.card).view(1, 1, -1)
    ours = finite.decode(every) if dim else finite.decode(every) * 1.0
    assert torch.allclose(ours, learned.fsq.indices_to_codes(every[:, 0]).transpose(1, 2), atol=1e-6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(finite.encode(z), codes)


def test_finite_passes_the_gradient_through():
    learned, z = LearnedFinite((5, 5), 4), latents(4, 20).requires_grad_()
    learned(z).latent.pow(2).sum().backward()
    assert z.grad.abs().sum() > 0


def wav2vec2_quantizer(product: Product):
    from transformers import Wav2Vec2Config
    from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2GumbelVectorQuantizer

    theirs = Wav2Vec2GumbelVectorQuantizer(
        Wav2Vec2Config(conv_dim=(24,) * 7, num_codevector_groups=2, num_codevectors_per_group=20, codevector_dim=12)
    )
    torch.manual_seed(2)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter)
    product.load_state_dict(theirs.state_dict())
    return theirs


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_the_product_quantiser_is_that_of_wav2vec2_with_every_gradient(training, masked):
    ours = Product(24, 2, 20, 12).train(training)
    theirs = wav2vec2_quantizer(ours).train(training)
    theirs.temperature = 0.7
    mask = torch.rand(3, 30) < 0.5 if masked else None
    a, b = (latents(24, 30, 3).requires_grad_() for _ in range(2))
    torch.manual_seed(3)
    chosen = ours(a, 0.7, mask)
    torch.manual_seed(3)
    vectors, perplexity = theirs(b.transpose(1, 2), mask)
    assert torch.allclose(chosen.latent, vectors.transpose(1, 2), atol=1e-5) and torch.allclose(chosen.perplexity, perplexity)
    weights = torch.randn_like(vectors)
    (vectors * weights).sum().add(perplexity).backward()
    (chosen.latent * weights.transpose(1, 2)).sum().add(chosen.perplexity).backward()
    assert torch.allclose(ours.codevectors.grad, theirs.codevectors.grad, atol=1e-5)
    if training:
        assert a.grad.abs().sum() > 0 and torch.allclose(a.grad, b.grad, atol=1e-5)
        assert torch.allclose(ours.weight_proj.weight.grad, theirs.weight_proj.weight.grad, atol=1e-4)
    else:
        codes = ours.encode(a)
        assert torch.equal(codes, chosen.codes) and codes.shape == (3, 2, 30) and codes.unique().numel() > 10
        assert torch.allclose(ours.decode(codes), vectors.transpose(1, 2), atol=1e-6)


def test_diversity_is_zero_where_every_entry_is_used_alike():
    product = Product(4, 2, 4, 8).eval()
    with torch.no_grad():
        product.weight_proj.weight.copy_(torch.eye(4).repeat(2, 1))
    even, odd = torch.eye(4)[None], torch.eye(4)[:, :1].expand(4, 4)[None]
    assert abs(float(product(even).diversity)) < 1e-6 and abs(float(product(odd).diversity) - 0.75) < 1e-6


def test_units_are_those_of_scikit_learn():
    cluster = pytest.importorskip("sklearn.cluster", reason="scikit-learn fits k-means")
    features = latents(6, 500, 1)[0].t().contiguous()
    books = kmeans.fit(features, 20)
    twin = cluster.KMeans(20, init=books.embed[0].numpy(), n_init=1, max_iter=1).fit(features.numpy())
    twin.cluster_centers_ = books.embed[0].numpy().astype(twin.cluster_centers_.dtype)
    units = books.encode(features.t()[None])
    assert units.shape == (1, 1, 500) and units.unique().numel() == 20
    assert torch.equal(units[0, 0], torch.from_numpy(twin.predict(features.numpy())).long())
    assert torch.equal(kmeans.fit(features, 20).embed, books.embed)
    error = (books.decode(units)[0].t() - features).pow(2).sum(1).mean()
    assert error < 0.7 * features.var(0).sum()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda: Groups(3, 1, 8, 16), "groups is 3 but must divide the width 16"),
        (lambda: Groups(2, 2, 8, 16).encode(torch.zeros(1, 8, 3)), r"\[B, 16, T\]"),
        (lambda: Groups(2, 2, 8, 16).decode(torch.zeros(1, 2, 3, dtype=torch.long)), "need all 4"),
        (lambda: Groups(2, 2, 8, 16).decode(torch.full((1, 4, 3), 8)), "code 8 of level 0"),
        (lambda: Finite((2, 5)), "3 values or more"),
        (lambda: Finite((5, 5)).encode(torch.zeros(1, 3, 3)), r"\[B, 2, T\]"),
        (lambda: Finite((5, 5)).decode(torch.full((1, 1, 3), 25)), "code 25"),
        (lambda: Product(8, 3, 8, 16), "groups is 3"),
        (lambda: Product(8, 2, 8, 16).encode(torch.zeros(1, 9, 3)), r"\[B, 8, T\]"),
        (lambda: Product(8, 2, 8, 16).decode(torch.zeros(1, 1, 3, dtype=torch.long)), "all 2 are needed"),
        (lambda: kmeans.fit(torch.zeros(3, 2), 4), "units is 4"),
        (lambda: kmeans.fit(torch.full((3, 2), float("nan")), 2), "finite"),
        (lambda: Codebooks(2, 8, 4).decode(torch.zeros(1, 1, 3, dtype=torch.long), first=2), "first is 2"),
    ],
)
def test_a_wrong_input_is_one_sentence(wrong, says):
    with pytest.raises(SlmError, match=says) as raised:
        wrong()
    assert "\n" not in str(raised.value)
