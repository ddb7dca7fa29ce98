"""Quantisers give the ids of those who published them: each beside a reference implementation with the same weights.

B batch, D width of a latent, T frames, Q levels, G groups.
"""

import pytest
import torch
from torch import Tensor

from slm.errors import SlmError
from slm_tokenizers.quantize.finite import Finite, LearnedFinite
from slm_tokenizers.quantize.grouped import Groups, LearnedGroups
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
        (lambda: Codebooks(2, 8, 4).decode(torch.zeros(1, 1, 3, dtype=torch.long), first=2), "first is 2"),
    ],
)
def test_a_wrong_input_is_one_sentence(wrong, says):
    with pytest.raises(SlmError, match=says) as raised:
        wrong()
    assert "\n" not in str(raised.value)


def test_dropout_leaves_every_second_row_whole_and_cuts_the_others_behind_some_level():
    from slm_tokenizers.quantize.learn import LearnedCodebooks

    torch.manual_seed(0)
    learned = LearnedCodebooks(8, 4, 16)
    seen = set()
    for _ in range(8):
        q = learned(torch.randn(6, 8, 20))
        heard = (q.codes >= 0).all(-1)  # [B,Q]
        assert heard[1::2].all() and heard[:, 0].all() and (heard.int().diff(dim=1) <= 0).all()
        seen |= set(heard[::2].sum(1).tolist())
    assert seen == {1, 2, 3, 4}, "each number of levels comes up"
    learned.eval()
    q = learned(torch.randn(6, 8, 20))
    assert (q.codes >= 0).all()


def test_what_is_decoded_while_learning_is_what_the_kept_levels_say():
    from slm_tokenizers.quantize.learn import LearnedCodebooks

    torch.manual_seed(0)
    learned = LearnedCodebooks(8, 4, 16)
    z = torch.randn(6, 8, 20, requires_grad=True)
    q = learned(z)
    every = learned.rvq.get_codes_from_indices(q.codes.clamp(min=0).permute(0, 2, 1))  # [Q,B,T,D]
    kept = (every * (q.codes >= 0).permute(1, 0, 2)[..., None]).sum(0).transpose(1, 2)
    torch.testing.assert_close(q.latent, kept, atol=1e-5, rtol=0)
    q.latent.sum().backward()
    assert torch.equal(z.grad, torch.ones_like(z)), "straight through"
