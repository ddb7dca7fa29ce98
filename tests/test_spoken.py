"""Units and codes are cut alike, tasks share one model without mixing, and what floors count is right."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from slm import recipe
from slm.backbone.mamba2 import Mamba2
from slm.backbone.transformer import Transformer
from slm.data.dialogues import every, turns
from slm.data.mixture import Mixture
from slm.data.spoken import Spoken, SpokenRows, crop
from slm.data.talks import TalkRows, Talks, talk, turned
from slm.errors import SlmError
from slm.evaluate import spoken_lm
from slm.stage.lm import Stream
from slm.stage.tasks import Tasks
from slm.stream.part import Part, merge
from slm.study.spoken import Bigram, counted, edits, told
from slm_tokenizers.text.bytes import Bytes

ROOT = Path(__file__).parent.parent
RATES = {"units": 50.0, "acoustic": 25.0}


def clip(frames: int) -> dict:
    """Codes that tell where they are: unit t is t, the codes of half its rate are t and 1000 + t."""
    slow = torch.arange(frames // 2)
    return {"units": torch.arange(frames)[None], "acoustic": torch.stack([slow, slow + 1000])}


def test_all_streams_of_a_crop_are_of_the_same_time():
    config = Spoken(seconds=1.0, batch=4, collapsed=(), spans={"fine": ("acoustic", 1, 2)})
    rows = SpokenRows(config, [clip(400), clip(30)], RATES).at(3)
    assert len(rows["units"]) == 4
    for units, codes, fine in zip(rows["units"], rows["acoustic"], rows["fine"]):
        assert len(units) in (50, 30) and abs(int(units[0]) - 2 * int(codes[0, 0])) <= 1
        assert torch.equal(fine, codes[1:])
    again = SpokenRows(config, [clip(400), clip(30)], RATES).at(3)
    assert all(torch.equal(a, b) for a, b in zip(rows["units"], again["units"]))


def test_units_lose_their_repetitions_and_only_they():
    slow = {"units": torch.tensor([[5, 5, 7, 7, 7, 5]]), "acoustic": torch.tensor([[1, 1, 2], [3, 3, 3]])}
    row = crop(Spoken(seconds=1.0), slow, RATES, 0.0, 0.12)
    assert row["units"].tolist() == [5, 7, 5] and row["acoustic"].tolist() == [[1, 1, 2], [3, 3, 3]]
    with pytest.raises(SlmError, match="no speech"):
        SpokenRows(Spoken(), [], RATES)


def test_a_part_by_another_name_tells_its_own_levels_of_the_stream():
    """What two parts tell of one stream is what one part would tell of all of it."""
    from slm.stream.vocabulary import Vocabulary

    vocabulary = Vocabulary({f"acoustic.{q}": 10 for q in range(3)})
    codes = torch.randint(10, (3, 4))
    low, high = Part("coarse", (0, 1), stream="acoustic"), Part("fine", (1, 3), stream="acoustic")
    apart = merge([low, high], {"coarse": [codes[:1]], "fine": [codes[1:]]}, vocabulary).ids[0, :, 0].tolist()
    whole = [merge([Part("acoustic", levels)], {"acoustic": [codes]}, vocabulary).ids[0, :, 0].tolist() for levels in ((0, 1), (1, 3))]
    assert apart == whole[0] + whole[1]
    with pytest.raises(SlmError, match="'fine' holds levels 1 to 2 of 'acoustic' but was given 3"):
        merge([high], {"fine": [codes]}, vocabulary)


TASKS = {
    "hear": [Part("asked", learn=False, stream="units"), Part("asked_text", end=True, stream="text")],
    "on": [Part("asked", end=True, stream="units")],
    "reply": [
        Part("asked", learn=False, stream="units"),
        Part("replied_text", end=True, stream="text"),
        Part("replied", end=True, stream="units"),
    ],
}


PLACES = {"asked": 0.4, "replied": 0.4, "asked_text": 1.0, "replied_text": 1.0}


@pytest.fixture(params=["transformer", "placed", "mamba2"])
def tasks(request) -> Tasks:
    torch.manual_seed(0)
    backbone = Mamba2.Config(16, 1, headdim=8, d_state=4) if request.param == "mamba2" else Transformer.Config(16, 1, 2)
    places = dict(PLACES) if request.param == "placed" else {}
    stage = Tasks.Config(TASKS, backbone, cap=4.0, places=places).build({"units": Stream(9), "text": Stream(7)})
    for parameter in stage.parameters():
        torch.nn.init.normal_(parameter, std=0.3) if parameter.dim() > 1 else None
    return stage.eval()


def rows(task: str, stage: Tasks, count: int = 3) -> dict:
    draw = torch.Generator().manual_seed(count)
    sizes = {"asked": 9, "replied": 9, "asked_text": 7, "replied_text": 7}
    batch = {name: [torch.randint(card, (4 + i,), generator=draw) for i in range(count)] for name, card in sizes.items()}
    return batch | {"task": stage.tagged(task, count)}


def test_each_task_learns_its_own_parts_and_a_row_is_heard_alone(tasks):
    for task, parts in TASKS.items():
        batch = rows(task, tasks)
        losses = tasks.loss(batch)
        assert list(losses) == [f"{task}.{part.name}" for part in parts if part.learn]
        each = [tasks.loss({name: [row[i]] for name, row in batch.items()}) for i in range(3)]
        for name, loss in losses.items():
            ids = [len(row) + 1 for row in batch[name.partition(".")[2]]]
            mean = sum(one[name].item() * n for one, n in zip(each, ids)) / sum(ids)
            assert loss.item() == pytest.approx(mean, abs=1e-4)


def test_parts_stand_where_their_places_say_and_those_of_no_task_are_passed_over():
    streams = {"units": Stream(9), "text": Stream(7)}
    tasks = Tasks.Config({"on": TASKS["on"]}, Transformer.Config(16, 1, 2), places=dict(PLACES)).build(streams)
    assert tasks.lm.config.places == {"task": 1.0, "asked": 0.4}
    with pytest.raises(SlmError, match="of every part"):
        Tasks.Config(TASKS, Transformer.Config(16, 1, 2), places={"asked": 0.4}).build(streams)


def test_the_tag_decides_what_is_said_and_batches_of_two_tasks_are_refused(tasks):
    batch = rows("on", tasks)
    heard = tasks.loss(batch)["on.asked"]
    other = tasks.lm.about([tasks.parts("on")[0], *TASKS["on"]]).loss(batch | {"task": tasks.tagged("reply", 3)})["asked"]
    assert abs(heard.item() - other.item()) > 1e-4, "another tag, another likelihood"
    with pytest.raises(SlmError, match="one task"):
        tasks.loss(batch | {"task": tasks.tagged("on", 2) + tasks.tagged("reply", 1)})
    with pytest.raises(SlmError, match="no task 'sing'"):
        tasks.run({"asked": batch["asked"]}, [0, 1, 2], "sing")


def test_what_a_task_says_is_legal_ends_and_does_not_depend_on_other_rows(tasks):
    asked = rows("reply", tasks)["asked"]
    said = tasks.run({"asked": asked}, [5, 6, 7], "reply")
    for i in range(3):
        alone = tasks.run({"asked": [asked[i]]}, [5 + i], "reply")
        assert torch.equal(alone["replied"][0], said["replied"][i]) and alone["stop"][0] == said["stop"][i]
        assert max(said["replied"][i].tolist(), default=0) < 9
        assert max(said["replied_text"][i].tolist(), default=0) < 7 and said["stop"][i] in ("end", "length", "loop")


def test_speech_goes_on_from_its_beginning_alone(tasks):
    begin = [torch.tensor([1, 2, 3]), torch.tensor([4, 5])]
    said = tasks.run({"asked_begins": begin}, [0, 1], "on")["asked"]
    assert all(torch.equal(row[: len(b)], b) for row, b in zip(said, begin))


def test_a_mixture_draws_every_task_by_its_share_and_the_same_each_time():
    class Constant:
        def __init__(self, name: str) -> None:
            self.name = name

        def build(self, tokenizers: dict) -> "Constant":
            return self

        def at(self, step: int, rank: int, world: int) -> dict:
            return {self.name: [torch.tensor([step])] * 2}

    mixed = Mixture({"a": Constant("a"), "b": Constant("b")}, {"a": 3.0}).build({})
    drawn = [mixed.at(step) for step in range(400)]
    share = np.mean([int(batch["task"][0]) == 0 for batch in drawn])
    assert 0.68 < share < 0.82 and all(len(batch["task"]) == 2 for batch in drawn)
    assert all(("a" in batch) == (int(batch["task"][0]) == 0) for batch in drawn)
    assert [int(mixed.at(step)["task"][0]) for step in range(50)] == [int(batch["task"][0]) for batch in drawn[:50]]
    with pytest.raises(SlmError, match="shares of c"):
        Mixture({"a": Constant("a")}, {"c": 1.0}).build({})
    with pytest.raises(SlmError, match="none of them has a share"):
        Mixture({"a": Constant("a")}, {"a": 0.0}).build({})
    only = Mixture({"a": None, "b": Constant("b")}, {"a": 0.0}).build({})  # what has no share is not built
    assert all(int(only.at(step)["task"][0]) == 1 for step in range(20))


def test_a_dialogue_keeps_its_repetitions_where_it_is_asked_to():
    codes = [torch.tensor([[3, 3, 1], [0, 1, 2]]), torch.tensor([[2, 2, 2], [0, 1, 2]])]
    for collapsed, asked, replied in ((True, [3, 1], [2]), (False, [3, 3, 1], [2, 2, 2])):
        row = talk(Bytes.Config().build(), ("a", "b"), codes, collapsed)
        assert row["asked"].tolist() == asked and row["replied"].tolist() == replied


def test_what_several_tasks_of_a_mixture_learn_from_is_read_once():
    built = []

    @dataclass
    class Rows:
        seed: int = 0

        def build(self, tokenizers: dict) -> "Rows":
            built.append(self.seed)
            return self

        def at(self, step: int, rank: int, world: int) -> dict:
            return {"rows": [torch.tensor([self.seed])]}

    mixed = Mixture({"a": Rows(), "b": Rows(1), "c": Rows(), "d": Rows(2)}, {"d": 0.0}).build({})
    assert built == [0, 1]
    for batch in (mixed.at(step) for step in range(30)):
        assert int(batch["rows"][0]) == (int(batch["task"][0]) == 1)


def test_dialogues_have_one_answer_each_and_rounds_hold_all_of_them():
    known = every()
    assert len(known) == len({asked for asked, _ in known}) > 100
    assert sorted(turns(len(known), 3)) == sorted(known) != turns(len(known), 3)
    talk = {name: torch.tensor([i]) for i, name in enumerate(("asked", "replied", "asked_text", "replied_text"))}
    assert turned(talk)["asked_text"].item() == 3 and turned(turned(talk)) == talk
    batch = TalkRows(Talks(batch=40, swap=True), [talk]).at(0)
    assert {row.item() for row in batch["asked"]} == {0, 1}


def test_counted_pairs_are_a_distribution_and_find_what_always_follows():
    bigram = Bigram([torch.tensor([[0, 1, 0, 1, 0, 1], [2, 3, 2, 3, 2, 3]])] * 20, card=4, levels=2)
    codes = torch.tensor([[0, 1, 0, 1], [2, 3, 2, 3]])
    assert told(codes, 4).tolist() == [0, 6, 1, 7, 0, 6, 1, 7]
    nats, count = bigram.nats(codes)
    assert count == 7 and nats / count < 0.2
    after = [Bigram([torch.tensor([0, 1, 2] * 30)], 3, 1).nats(torch.tensor([0, c]))[0] for c in range(3)]
    assert after[1] < 0.2 and min(after[0], after[2]) > 2
    total = sum(np.exp(-Bigram([torch.arange(3)], 3, 1).nats(torch.tensor([1, c]))[0]) for c in range(3))
    assert total == pytest.approx(1.0, abs=1e-5)


def test_a_floor_of_counted_pairs_is_never_worse_than_counting_ids_alone():
    """Pairs of random ids tell nothing, and few of them would mislead."""
    draw = torch.Generator().manual_seed(0)
    rows = [torch.randint(64, (50,), generator=draw) for _ in range(40)]
    bigram = Bigram(rows[:20], 64, 1)
    misled = sum(bigram.nats(row)[0] for row in rows[20:]) / (20 * 49)
    assert misled > np.log(64) + 0.3 and counted(bigram, rows[20:]).value < np.log(64) + 0.05


def test_edits_are_counted():
    for a, b, n in (("kitten", "sitting", 3), ("", "abc", 3), ("abc", "", 3), ("same", "same", 0)):
        assert edits(torch.tensor([ord(c) for c in a]), torch.tensor([ord(c) for c in b])) == n


def test_pairs_differ_where_they_should():
    from slm_tokenizers.text.phonemes import dictionary, lookup

    real = {tuple(lookup(word) or ()) for word in dictionary()}
    for pair in spoken_lm.words(["garden", "teacher", "window", "morning", "cat", "zzzz"], 4):
        assert tuple(pair.right) in real and tuple(pair.wrong) not in real
        assert len(pair.right) == len(pair.wrong) and sum(a != b for a, b in zip(pair.right, pair.wrong)) == 1
    with pytest.raises(SlmError, match="only 1 can be made"):
        spoken_lm.words(["garden"], 2)
    for pair in spoken_lm.sentences(100):
        assert pair.right != pair.wrong and abs(len(pair.right.split()) - len(pair.wrong.split())) == 0
    stories = spoken_lm.stories([torch.arange(100), torch.arange(100) + 500, torch.arange(90) + 900, torch.arange(5)], ["a", "a", "b", "b"])
    assert len(stories) == 2 and all(torch.equal(right[:50], wrong[:50]) and len(right) == len(wrong) for right, wrong in stories)
    assert spoken_lm.told_apart([(torch.tensor([1]), torch.tensor([2]))] * 2, lambda row: float(row)).tolist() == [1.0, 1.0]


def test_a_model_with_units_is_stored_with_them_and_other_units_are_refused(tmp_path):
    from slm import model
    from slm.train.run import train_recipe

    path = ROOT / "recipes" / "speech_lm" / "omni.py"
    assert list(recipe.load(path).small().stages) == ["omni"]
    train_recipe(path, "omni", tmp_path, small=True, quiet=True)
    loaded = model.load(tmp_path)
    audio = torch.randn(1, 1, 6400)
    again = model.load(tmp_path).tokenizers["acoustic"].encode(audio)
    assert torch.equal(loaded.tokenizers["acoustic"].encode(audio), again)


def test_a_continuation_that_is_too_short_has_no_voice_and_is_counted(monkeypatch):
    """Two of three prompts are gone on from: voices and units are those of the two, and all three are counted."""
    from types import SimpleNamespace

    import numpy as np

    from slm.evaluate import speaker
    from slm.study import audiolm

    class Ear:
        def embed(self, audio: np.ndarray) -> np.ndarray:
            """A voice is the sign of its sound."""
            return np.eye(2, dtype=np.float32)[int(audio.mean() > 0)]

    class Codec:
        def decode(self, codes: torch.Tensor) -> torch.Tensor:
            return codes[:, :1].repeat_interleave(320, -1).float()

    class Units:
        def encode(self, audio: torch.Tensor) -> torch.Tensor:
            assert audio.shape[-1] >= 25 * 320, "what is shorter would be refused"
            return audio[:, :, ::320].long() % 3

    monkeypatch.setattr(speaker, "SpeakerEncoder", Ear)
    signs, lengths = (1, -1, 1), (60, 60, 3)
    clips = [{"acoustic": torch.full((2, 250), sign), "units": torch.zeros(1, 250, dtype=torch.long)} for sign in signs]
    said = [(torch.tensor([1]), torch.full((2, 150 + n), sign)) for sign, n in zip(signs, lengths)]
    monkeypatch.setattr(audiolm, "go_on", lambda stages, clips, seed: said)
    items = [SimpleNamespace(speaker=name) for name in "abc"]
    found = audiolm.continuations({}, {"acoustic": Codec(), "units": Units()}, clips, items, 0, 40)
    assert found["goes on"].value == pytest.approx(2 / 3)
    assert found["voice: own prompt"].value == 1 and found["voice: another's prompt"].value == 0
    said[:] = [(units, codes[:, :155]) for units, codes in said]
    with pytest.raises(SlmError, match="none was gone on from"):
        audiolm.continuations({}, {"acoustic": Codec(), "units": Units()}, clips, items, 0, 40)


def test_a_chain_of_modality_is_read_back_from_its_ids_alone():
    """Transcript, answer, spoken answer: markers and ends are enough to take a row apart, whatever is empty or repeated in it."""
    from slm.stage.tasks import TAG
    from slm.stream.part import merge

    chain = recipe.load(ROOT / "recipes" / "speech_lm" / "speechgpt.py").CHAIN
    stage = Tasks.Config({"reply": chain}, Transformer.Config(16, 1, 2)).build({"semantic": Stream(9), "text": Stream(7)})
    vocabulary = stage.lm.vocabulary
    batch = {part.name: [torch.tensor(ids, dtype=torch.long) for ids in ([], [3, 3, 3], [0, 6, 1, 2])] for part in chain}
    merged = merge([TAG, *chain], batch | {"task": stage.tagged("reply", 3)}, vocabulary)
    for i in range(3):
        told: list[tuple[str, list[int]]] = []
        for id in merged.ids[i, :, 0][merged.ids[i, :, 0] >= 0].tolist():
            name = vocabulary.name_of(id)
            if name == "<eos>":
                continue
            if name.startswith("<"):
                told.append((name, []))
            else:
                told[-1][1].append(int(vocabulary.to_local(name, torch.tensor([id]))))
        assert [ids for _, ids in told] == [[0], *(batch[part.name][i].tolist() for part in chain)]
        assert [name for name, _ in told] == [f"<{part.of}>" for part in (TAG, *chain)]


def test_a_spoken_answer_is_right_if_no_other_reply_in_any_voice_is_nearer():
    """The stage says the reply to the question it is given, with a slip in every second unit of the last one."""
    from types import SimpleNamespace

    from slm.study import talks as measured

    voice = [{"asked": [i], "asked_text": [i], "replied": [10 * i + j for j in range(6)], "replied_text": [i, 7]} for i in range(3)]
    talks = [{name: torch.tensor(ids) for name, ids in talk.items()} for talk in voice]
    slower = [talk | {"replied": talk["replied"].repeat_interleave(2) + 100} for talk in talks]  # another voice says other units

    def run(batch: dict, seeds: list[int], task: str) -> dict:
        said = [slower[int(asked)]["replied"].clone() for asked in batch["asked"]]
        said[-1][::2] += 1000
        return {"replied": said, "replied_text": [talks[int(asked)]["replied_text"] for asked in batch["asked"]]}

    stage = SimpleNamespace(run=run, config=SimpleNamespace(tasks={"reply": TASKS["reply"]}))
    others = [measured.different(talks, i) for i in range(3)]
    found = {name: figure.value for name, figure in measured.answered(stage, talks, others, talks + slower).items()}
    assert found["reply: spoken right"] == found["reply: answers right"] == 1
    assert found["reply: spoken right, another's question"] == found["reply: answers right, another's question"] == 0
    assert measured.share(torch.tensor([1, 2]), torch.tensor([1, 2, 3, 4])) == 0.5
