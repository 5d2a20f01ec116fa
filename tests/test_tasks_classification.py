"""Classification: data without leaks, metrics on known cases, batches, learning, and damaged files."""

import ast
import json
import re

import numpy as np
import pytest

from tinytransformer.models import BERT, GPT, BERTConfig, BERTForSequenceClassification, GPTConfig
from tinytransformer.optim import AdamW, decay_groups
from tinytransformer.tasks import (
    Classification,
    TaskData,
    fine_tuning_optimizer,
    read_rows,
    split_rows,
)
from tinytransformer.tasks.classification import classification_scores, docstrings_by_family
from tinytransformer.tasks.encoders import encoder_of, hide_tokens
from tinytransformer.tensor import Tensor
from tinytransformer.text import TextError, stdlib_modules
from tinytransformer.training import TrainingSettings

WORDS = {
    "sea": ["wave", "salt", "tide", "reef", "gull"],
    "sky": ["cloud", "wind", "star", "moon", "haze"],
    "soil": ["root", "worm", "clay", "seed", "moss"],
}


def sentences(number, seed):
    """Rows whose label is that of most of their words."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(number):
        label = str(rng.choice(list(WORDS)))
        other = str(rng.choice([name for name in WORDS if name != label]))
        words = [*rng.choice(WORDS[label], 4), *rng.choice(WORDS[other], rng.integers(1, 3))]
        rows.append((" ".join(rng.permutation(words)), label))
    return rows


def task_of(rows, validation, batch_size=7, seed=3):
    data = TaskData(rows, validation, "made up")
    model, tokenizer = Classification.new_model(data, np.random.default_rng(5))
    return Classification(data, model, tokenizer, batch_size, seed), model


@pytest.fixture(scope="module")
def stdlib():
    return docstrings_by_family(seed=0)


def test_no_docstring_and_no_file_is_on_both_sides(stdlib):
    def words(rows):
        return {" ".join(text.lower().split()) for text, _ in rows}

    assert len(words(stdlib.train)) == len(stdlib.train)
    assert not words(stdlib.train) & words(stdlib.validation)
    held = {text for text, _ in stdlib.validation}
    families = {label for _, label in stdlib.train}
    hidden = re.compile(rf"(?i)(?<![a-z])({'|'.join(families)})(?![a-z])")
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    sides = {}
    for path, module in stdlib_modules(*sorted(families)):
        for node in ast.walk(module):
            if isinstance(node, kinds) and (text := ast.get_docstring(node)):
                if hidden.sub("…", text) in held:
                    sides.setdefault(path, set()).add("held out")
                elif len(text.split()) > 12:  # shorter ones come in several files, and are kept once
                    sides.setdefault(path, set()).add("train")
    # a docstring that an earlier file has too is not counted for a later one, so a few files show both
    both = [path for path, of in sides.items() if len(of) == 2]
    assert len(both) <= 0.06 * len(sides)


def test_each_family_is_held_out_in_part_and_its_name_is_gone(stdlib):
    families = {label for _, label in stdlib.train}
    assert len(families) == 8
    for family in families:
        numbers = [sum(label == family for _, label in rows) for rows in (stdlib.train, stdlib.validation)]
        assert 0.05 < numbers[1] / sum(numbers) <= 0.2
    name = re.compile(rf"(?i)(?<![a-z])({'|'.join(families)})(?![a-z])")
    assert not any(name.search(text) for text, _ in stdlib.train + stdlib.validation)


def test_another_seed_holds_out_other_files():
    held = [docstrings_by_family(seed, packages=("asyncio", "email")).validation for seed in (0, 1, 1)]
    assert held[0] != held[1] == held[2]


def library(monkeypatch, files):
    """Put files, each a list of docstrings, in the place of the standard library."""
    modules = [
        (path, ast.parse("".join(f'def f{i}():\n    """{text}"""\n' for i, text in enumerate(texts))))
        for path, texts in files.items()
    ]
    monkeypatch.setattr("tinytransformer.tasks.classification.stdlib_modules", lambda *_: modules)


def test_which_packages_and_docstrings_are_taken(monkeypatch):
    def said_of(name, files, number):
        return {
            f"{name}/{file}.py": [
                f"The {name} has {file}, {i} fish by its {name}side." for i in range(number)
            ]
            for file in range(files)
        }

    sea = said_of("sea", 5, 10)
    files = {"alone.py": sea["sea/0.py"][:1], **sea}  # what is in no package takes nothing away
    files["sea/0.py"] = [*sea["sea/0.py"], "The short sea."]
    library(monkeypatch, {**files, **said_of("few", 4, 20), **said_of("small", 7, 7)})
    data = docstrings_by_family()
    found = sorted(text for text, label in data.train + data.validation if label == "sea")
    assert found == sorted(
        f"The … has {file}, {i} fish by its seaside." for file in range(5) for i in range(10)
    )
    assert len(data.train) == 40
    assert {label for _, label in data.validation} == {"sea"}


def test_the_largest_file_of_a_package_is_never_held_out(monkeypatch):
    small = {f"sea/{file}.py": [f"A small file, {file} {i}." for i in range(5)] for file in range(5)}
    library(monkeypatch, {"sea/big.py": [f"The big one, {i}." for i in range(30)], **small})
    for seed in range(7):
        held = [text for text, _ in docstrings_by_family(seed).validation]
        assert len(held) == 10
        assert not any("big" in text for text in held)


def test_scores_on_a_known_case():
    # class 0: TP 2, FP 1, FN 0; class 1: TP 1, FP 0, FN 2; class 2: TP 0, FP 1, FN 0
    scores = classification_scores([0, 0, 0, 1, 2], [0, 0, 1, 1, 1], classes=4)  # the last one is nowhere
    assert scores == {"accuracy": 3 / 5, "macro F1": pytest.approx((4 / 5 + 2 / 4 + 0) / 3)}


def test_the_baseline_says_the_most_frequent_class_of_training():
    rows = [("wave", "sea"), ("cloud", "sky"), ("moon", "sky")]
    task, _ = task_of(rows, [("salt", "sea"), ("tide", "sea"), ("star", "sky")], batch_size=2)
    name, scores = task.baseline()
    assert name == "always 'sky'"
    assert scores == {"accuracy": 1 / 3, "macro F1": pytest.approx((0 + 1 / 2) / 2)}


def test_an_epoch_has_each_row_once_and_a_step_is_repeated_exactly():
    rows = sentences(23, 1)
    task, model = task_of(rows, rows[:5])
    task.hidden = 0.0
    seen = []
    for step in range(3, 6):  # the second epoch of three batches
        ids, mask, labels = task.batch(step)
        assert ids.shape == mask.shape == (7, ids.shape[1])
        seen += [(*row[keep].tolist(), label) for row, keep, label in zip(ids, mask, labels, strict=True)]
    known = [(*ids.tolist(), label) for ids, label in task.train]
    assert len(seen) == 21
    assert all(seen.count(row) <= known.count(row) for row in seen)
    other = Classification(task.data, model, task.tokenizer, 7, seed=3)
    for step in (5, 0, 4):
        for a, b in zip(other.batch(step), Classification.batch(other, step), strict=True):
            np.testing.assert_array_equal(a, b)
    other.hidden = 0.0
    epochs = [[other.batch(step)[0].tolist() for step in steps] for steps in (range(3), range(3, 6))]
    assert not any(batch in epochs[0] for batch in epochs[1])


def test_batches_of_alike_lengths_come_in_any_order():
    rows = [("wave " * n, "sea") for n in range(1, 36)]
    task, _ = task_of(rows, rows[:1], batch_size=5)
    lengths = [sorted(task.batch(step)[1].sum(axis=1).tolist()) for step in range(7)]
    assert [n for batch in sorted(lengths) for n in batch] == sorted(task.lengths)
    assert lengths != sorted(lengths)


def test_tokens_are_hidden_in_training_alone_and_never_special_ones():
    rows = sentences(40, 1)
    task, _ = task_of(rows, rows[:5], batch_size=40)
    ids, mask, _ = task.batch(0)
    tokenizer = task.tokenizer
    lengths = mask.sum(axis=1)
    assert (ids[:, 0] == tokenizer.cls_id).all()
    assert (ids[np.arange(40), lengths - 1] == tokenizer.sep_id).all()
    assert ((ids == tokenizer.pad_id) == ~mask).all()
    words = lengths.sum() - 2 * 40
    assert 0.15 < (ids == tokenizer.mask_id).sum() / words < 0.45
    assert not any(tokenizer.mask_id in ids for ids, _ in task.validation)
    hidden = [(task.batch(step)[0] == tokenizer.mask_id)[:, 1:5] for step in (0, 1)]
    assert (hidden[0] != hidden[1]).any()  # other places at each step
    assert (hide_tokens(ids, tokenizer, 0.0, np.random.default_rng(0)) == ids).all()


def test_a_model_with_dropout_of_its_own_sees_all_tokens():
    rows = sentences(12, 1)
    task, _ = task_of(rows, rows[:5])
    config = BERTConfig(task.tokenizer.vocab_size, 13, 12, 2, 3, 24, dropout=0.1)
    given = Classification.with_head(BERT(config), task.data, np.random.default_rng(0))
    for p in given.parameters():
        p.data *= 9  # or what is read would hardly matter
    long = "tide reef gull salt wave " * 9
    data = TaskData([*rows, (long, "sea")], task.data.validation, "")
    task = Classification(data, given, task.tokenizer, 13, 3)
    ids, mask, _ = task.batch(0)
    assert not (ids == task.tokenizer.mask_id).any()
    assert max(task.lengths) == 13  # as many as there are positions
    assert (ids[np.arange(13), mask.sum(axis=1) - 1] == task.tokenizer.sep_id).all()
    answers = [Classification.predict(given, task.tokenizer, task.facts(), long) for _ in range(2)]
    assert answers[0] == answers[1]  # nothing is dropped
    z = given.eval()(task.train[-1][0][None]).numpy()[0]
    likeliest = np.exp(z.max()) / np.exp(z).sum()
    assert answers[0][0] == f"{task.labels[z.argmax()]}  {likeliest:.3f}"
    given.train()
    Classification.predict(given, task.tokenizer, task.facts(), long)
    assert given.training


def test_padding_is_no_part_of_what_is_guessed():
    task, _ = task_of(sentences(20, 1), [(" ".join(["tide"] * n), "sea") for n in (1, 9, 2, 30)])

    def by_length(ids, attention_mask):
        return Tensor(np.eye(3)[np.sum(attention_mask, axis=1) % 3])

    guesses = task._guess(by_length, task.validation)
    assert guesses.tolist() == [len(ids) % 3 for ids, _ in task.validation]


def test_samples_say_what_is_guessed_and_what_is_true(monkeypatch):
    task, model = task_of(sentences(20, 1), [("reef", "sea"), ("haze", "sky")])
    monkeypatch.setattr(task, "_guess", lambda model, examples: [task.labels.index("soil")] * len(examples))
    lines = task.samples(model, 2)
    shown = dict(zip(lines[::2], lines[1::2], strict=True))
    assert shown == {"'reef'": "  says soil, and it is sea", "'haze'": "  says soil, and it is sky"}


def test_it_learns_what_most_words_say():
    task, model = task_of(sentences(300, 1), sentences(60, 2), batch_size=32)
    optimizer = AdamW(decay_groups(model, 0.1), lr=2e-3)
    for step in range(300):
        optimizer.lr = 2e-3 * (1 - step / 300)  # at a constant rate the end differs with BLAS's rounding
        model.zero_grad()
        task.loss(model, *task.batch(step)).backward()
        optimizer.step()
    scores, (_, baseline) = task.score(model), task.baseline()
    assert baseline["accuracy"] < 0.5 < 0.9 < scores["accuracy"]
    assert task.validation_loss(model) < 0.4
    assert model.training
    line = Classification.predict(model, task.tokenizer, task.facts(), "wave salt star tide")[0]
    assert line.startswith("sea ")


def test_validation_loss_is_that_of_all_rows_at_once():
    rows = sentences(30, 4)
    task, model = task_of(rows, rows[:11], batch_size=4)
    at_once = task.loss(model, *task.collate(task.validation)).item()
    assert task.validation_loss(model) == pytest.approx(at_once, rel=1e-5)
    assert model.training
    task.validation_loss(model.eval())
    assert not model.training


def test_a_class_without_rows_to_train_on_is_left_out():
    task, _ = task_of([("wave", "sea"), ("cloud", "sky")], [("worm", "soil"), ("salt", "sea")], batch_size=2)
    assert task.labels == ["sea", "sky"]
    assert len(task.validation) == 1
    assert len(task.samples(_, 5)) == 2


def test_only_a_bert_is_taken_and_a_missing_pooler_is_made():
    data = TaskData([("a", "x"), ("b", "y"), ("c", "z")], [], "")
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="needs an encoder, a BERT, and the model given is a GPT"):
        Classification.with_head(GPT(GPTConfig(11, 5, 8, num_heads=2)), data, rng)
    config = BERTConfig(11, 13, 12, 2, 3, 24, num_labels=5)
    model = Classification.with_head(BERT(config, pooler=False), data, rng)
    assert isinstance(model, BERTForSequenceClassification)
    assert model([[3, 1, 4]]).shape == (1, 3)
    assert 0.01 < model.encoder.pooler.weight.data.std() < 0.03
    assert encoder_of(model, False, rng).pooler is None


def test_layer_decay_scales_the_learning_rate_of_each_layer():
    config = BERTConfig(11, 13, 12, 2, 3, 24)
    model = BERTForSequenceClassification(config)
    settings = TrainingSettings(learning_rate=0.08, weight_decay=0.3)
    optimizer = fine_tuning_optimizer(model, settings, layer_decay=0.5)
    scale = {id(p): (g["lr_scale"], g["weight_decay"]) for g in optimizer.groups for p in g["params"]}
    expected = {"token_embedding": 1 / 8, "layers.0": 1 / 4, "layers.1": 1 / 2, "pooler": 1, "classifier": 1}
    for name, p in model.named_parameters():
        for part, wanted in expected.items():
            if part in name:
                assert scale[id(p)] == (pytest.approx(wanted), 0.3 if p.ndim == 2 else 0.0)
    assert len(scale) == len(list(model.parameters()))
    flat = fine_tuning_optimizer(model, settings)
    assert [group["lr_scale"] for group in flat.groups] == [1.0, 1.0]


def test_frozen_parameters_are_not_optimized():
    model = BERTForSequenceClassification(BERTConfig(11, 13, 12, 2, 3, 24))
    model.encoder.requires_grad_(False)
    for decay in (1.0, 0.5):
        optimizer = fine_tuning_optimizer(model, TrainingSettings(), decay)
        assert {id(p) for g in optimizer.groups for p in g["params"]} == {
            id(p) for p in model.classifier.parameters()
        }
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="nothing is left to train"):
        fine_tuning_optimizer(model, TrainingSettings())


# rows of the user's own


def test_rows_come_from_three_kinds_of_file(tmp_path):
    rows = [('a "b", c\nd', "x"), ("é 注", "y")]
    (tmp_path / "r.csv").write_text('label,more,text\nx,1,"a ""b"", c\nd"\n\ny,2,é 注\n', encoding="utf-8")
    lines = [json.dumps({"text": text, "label": label, "more": 1}) for text, label in rows]
    (tmp_path / "r.jsonl").write_text("\n".join([lines[0], "", lines[1]]), encoding="utf-8")
    (tmp_path / "r.tsv").write_text('text\tlabel\n"a ""b"", c\nd"\tx\né 注\ty\n', encoding="utf-8")
    for kind in ("csv", "tsv", "jsonl"):
        assert read_rows(tmp_path / f"r.{kind}", Classification) == rows


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("r.txt", "text,label\na,b\n", "must end in .csv, .tsv or .jsonl"),
        ("r.csv", "", "is empty"),
        ("r.csv", "text,class\na,b\n", "line 1: there is no column 'label'"),
        ("r.csv", "text,label\na,b\n\n\nc\n", "line 5: it has 1 values, and the header 2"),
        ("r.csv", 'text,label\n"a\nb",x\n  ,y\n', "line 4: text must be a text that is not empty"),
        ("r.csv", 'text,label\na,x\n"b,y\n', "line 3: unexpected end of data"),
        ("r.csv", "text,label\na,b\n", "has 1 rows"),
        ("r.jsonl", '{"text": "a", "label": "b"}\n\n{"text": "c", "label": 3}\n', "line 3: label must be a"),
        ("r.jsonl", '{"text": "a", "label": "b"}\n{"text": "c"\n', "line 2: it is not valid JSON"),
        ("r.jsonl", '["a", "b"]\n', "line 1: it is not a JSON object with text, label"),
        ("r.jsonl", '{"label": "b"}\n', "line 1: text must be a text that is not empty"),
    ],
)
def test_a_damaged_file_is_one_line_with_the_place(tmp_path, name, content, message):
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(TextError, match=re.escape(message)) as error:
        read_rows(tmp_path / name, Classification)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_rows_are_split_by_document_and_kept_once():
    rng = np.random.default_rng(0)
    rows = [(f"text {rng.integers(40)}", f"row {i}") for i in range(400)]
    train, validation = split_rows(rows + rows[:50], lambda row: row[0], seed=7)
    assert sorted(train + validation) == sorted(rows)
    assert not {row[0] for row in train} & {row[0] for row in validation}
    assert 20 <= len(validation) <= 44
    assert split_rows(rows, lambda row: row[0], seed=8)[1] != validation
    with pytest.raises(ValueError, match="of one document"):
        split_rows([("a", 1), ("a", 2)], lambda row: row[0], seed=0)
