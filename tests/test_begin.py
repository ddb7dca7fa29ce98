"""A stage that goes on from a text model knows what that model knew: the same scores of text, whoever trained it."""

import copy
from pathlib import Path

import pytest
import torch

from slm import recipe
from slm.backbone.transformer import Transformer
from slm.errors import SlmError
from slm.stage.begin import begin, form
from slm.stage.lm import LM, Stream
from slm.stage.tasks import Tasks
from slm.stream.part import Part, merge
from slm.train.run import train_recipe, train_stage
from slm_tokenizers.text.pretrained import Pretrained

ROOT = Path(__file__).parent.parent / "recipes/speech_lm"
PARTS = [Part("text"), Part("units", end=True)]
CARDS = {"text": 40, "units": 7}


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """The folder of a small Llama with random weights, as transformers saves it, a tokenizer beside it; and the model."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from tokenizers import Tokenizer, models, pre_tokenizers

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=40, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2
    )
    model, folder = LlamaForCausalLM(config).eval(), tmp_path_factory.mktemp("llama")
    model.save_pretrained(folder)
    words = {word: i for i, word in enumerate(["[UNK]", *(f"w{i}" for i in range(37))])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder, model


def stage_of(backbone) -> LM:
    torch.manual_seed(1)
    return LM.Config(PARTS, backbone).build({name: Stream(card) for name, card in CARDS.items()}).eval()


@torch.no_grad()
def test_text_is_scored_as_transformers_scores_it(llama):
    folder, theirs = llama
    backbone, _ = form(folder)
    stage = stage_of(backbone)
    begin(stage, folder)
    ids = torch.randint(40, (2, 9))
    first, stop = stage.vocabulary.range("text")
    hidden, _ = stage.backbone(stage.embed(ids + first))
    ours = stage.score(hidden, torch.arange(first, stop))
    assert torch.allclose(ours, theirs(ids).logits, atol=1e-5)


@torch.no_grad()
def test_new_ids_are_like_the_old_ones_and_none_is_another(llama):
    folder, theirs = llama
    stage = stage_of(form(folder)[0])
    begin(stage, folder)
    new = stage.embed.weight[slice(*stage.vocabulary.range("units"))]
    old = theirs.get_input_embeddings().weight
    assert 0.5 < float(new.std() / old.std()) < 2 and len({tuple(row) for row in new.tolist()}) == 7


def test_tasks_begin_too_and_both_learn_from_there(llama):
    folder, _ = llama
    backbone, text = form(folder)
    tasks = Tasks.Config({"say": [Part("text", learn=False), Part("units", end=True)]}, backbone)
    stage = tasks.build({"text": Stream(40), "units": Stream(7)})
    begin(stage, folder)
    batch = {"task": [torch.tensor([0])] * 2, "text": [torch.randint(40, (5,))] * 2, "units": [torch.randint(7, (4,))] * 2}
    loss = stage.loss(batch)["say.units"]
    loss.backward()
    assert loss.isfinite() and stage.lm.backbone.norm.weight.grad.abs().sum() > 0
    assert Pretrained(text).card == 40, "the model has more ids than its tokenizer, and a stage must have as many"
    assert Pretrained(text).decode(Pretrained(text).encode("w3 w0 w11")) == "w3 w0 w11"


def test_a_run_of_ours_begins_a_stage_with_what_it_has_learned(tmp_path):
    path = ROOT / "textlm.py"
    train_recipe(path, "text", tmp_path, ["stages.text.backbone.dim=16"], small=True, quiet=True)
    from slm.model import load

    known = load(tmp_path).stages["text"]
    stage = stage_of(Transformer.Config(16, 1, 2, dropout=0.3))
    with pytest.raises(SlmError, match="knows 256 ids of text but the stage has 40"):
        begin(stage, tmp_path)
    stage = LM.Config(PARTS, Transformer.Config(16, 1, 2, dropout=0.3)).build({"text": Stream(256), "units": Stream(7)}).eval()
    begin(stage, tmp_path)
    batch = {"text": [torch.randint(256, (12,))], "units": [torch.randint(7, (3,))]}
    alone = merge(known.parts, {"text": batch["text"]}, known.vocabulary)
    first, stop = (lm.vocabulary.range("text") for lm in (known, stage))
    with torch.no_grad():
        there, _ = known.think(known.inputs(alone.ids[:, :13], None), None, None, None)
        both = merge(stage.parts[:1], {"text": batch["text"]}, stage.vocabulary)
        here, _ = stage.think(stage.inputs(both.ids[:, :13], None), None, None, None)
        scores = [known.score(there, torch.arange(*first)), stage.score(here, torch.arange(*stop))]
    assert torch.allclose(*scores, atol=1e-5)


def test_training_begins_there_once_and_goes_on_from_checkpoints(tmp_path):
    train_recipe(ROOT / "textlm.py", "text", tmp_path / "llm", small=True, quiet=True)
    r = recipe.load(ROOT / "grown.py").small()
    r.train["omni"].start, r.train["omni"].lr = str(tmp_path / "llm"), 0.0
    train_stage(copy.deepcopy(r), "omni", tmp_path / "grown", quiet=True)
    from slm.model import load

    known, grown = load(tmp_path / "llm").stages["text"], load(tmp_path / "grown").stages["omni"].lm
    for name, weight in known.backbone.state_dict().items():
        assert torch.equal(weight, grown.backbone.state_dict()[name]), name
    first, stop = known.vocabulary.range("text"), grown.vocabulary.range("text")
    assert torch.equal(known.embed.weight[slice(*first)], grown.embed.weight[slice(*stop)])


def test_what_does_not_fit_is_one_sentence(llama, tmp_path):
    folder, _ = llama
    with pytest.raises(SlmError, match="there is no text model"):
        begin(stage_of(Transformer.Config(32, 1, 2)), tmp_path)
    with pytest.raises(SlmError, match="other layers"):
        begin(stage_of(Transformer.Config(32, 1, 2)), folder)
    with pytest.raises(SlmError, match="no tokenizer.json"):
        Pretrained(Pretrained.Config("{"))
    with pytest.raises(SlmError, match="cannot be read"):
        Pretrained.Config.read(tmp_path)
    assert form(tmp_path / "none") is None
