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


def test_scores_on_a_known_case():
    # class 0: TP 2, FP 1, FN 0; class 1: TP 1, FP 0, FN 2; class 2: TP 0, FP 1, FN 0
    scores = classification_scores([0, 0, 0, 1, 2], [0, 0, 1, 1, 1], classes=3)
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
    assert [b[0].tolist() for b in map(other.batch, (0, 3))] != [other.batch(3)[0].tolist()] * 2


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
    assert (hide_tokens(ids, tokenizer, 0.0, np.random.default_rng(0)) == ids).all()


def test_a_model_with_dropout_of_its_own_sees_all_tokens():
    rows = sentences(12, 1)
    task, _ = task_of(rows, rows[:5])
    config = BERTConfig(task.tokenizer.vocab_size, 13, 12, 2, 3, 24, dropout=0.1)
    given = Classification.with_head(BERT(config), task.data, np.random.default_rng(0))
    task = Classification(task.data, given, task.tokenizer, 7, 3)
    assert not (task.batch(0)[0] == task.tokenizer.mask_id).any()
    assert max(task.lengths) <= 13


def test_it_learns_what_most_words_say():
    task, model = task_of(sentences(300, 1), sentences(60, 2), batch_size=32)
    optimizer = AdamW(decay_groups(model, 0.1), lr=2e-3)
    for step in range(300):
        optimizer.lr = 2e-3 * (1 - step / 300)  # at a constant rate the last steps differ with BLAS's rounding
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
