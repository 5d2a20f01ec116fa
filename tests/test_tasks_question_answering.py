"""Question answering: literal answers, spans that map back to the text, SQuAD's metrics, learning."""

import ast
import dataclasses
import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytransformer.models import BERT, GPT, BERTConfig, BERTForQuestionAnswering, GPTConfig
from tinytransformer.models.bert_heads import BERTSpanOutput
from tinytransformer.optim import AdamW, decay_groups
from tinytransformer.tasks import QuestionAnswering, TaskData, read_rows, split_rows
from tinytransformer.tasks import question_answering as qa
from tinytransformer.tasks.question_answering import answer_scores, questions_about_functions, read
from tinytransformer.tensor import Tensor
from tinytransformer.text import TextError, WordPieceTokenizer, stdlib_modules

TOKENIZER = WordPieceTokenizer.train(
    "naïve cats sit on mats; 注意 all dogs-and-cats run to (the) mat. " * 9, 60
)
WORDS = [
    "cats",
    "Naïve",
    "mats;",
    "注意",
    "dogs-and-cats",
    "xyzzy",
    "(the)",
    "mat.",
    "e\u0301tude",
    "\t",
    "RUN",
]


@pytest.fixture(scope="module")
def stdlib():
    return questions_about_functions(seed=0)


def test_answers_are_literal_and_no_question_or_file_is_on_both_sides(stdlib):
    for question, context, answer, start in stdlib.train + stdlib.validation:
        assert context[start : start + len(answer)] == answer
        name = re.fullmatch(r"What does (\w+) do\?", question)[1]
        assert context[:start].endswith(f"{name}()\n    ")
        assert context.count("\n") >= 2
    sides = [{(row[0], row[2]) for row in rows} for rows in (stdlib.train, stdlib.validation)]
    assert len(sides[0]) == len(stdlib.train)
    assert not sides[0] & sides[1]
    assert not {row[1] for row in stdlib.train} & {row[1] for row in stdlib.validation}
    assert 0.05 < len(stdlib.validation) / len(stdlib.train) < 0.13


def test_which_functions_stand_in_a_list(monkeypatch):
    functions = [
        ("sit", "Sit down on the mat.\n\nThis is said nowhere."),
        ("eat", "Eat it."),  # too short
        ("run", f"Run {'far ' * 30}"),  # too long
        ("nap", "Take a nap."),
        ("sit", "The first counts, not this."),
        *((f"walk{i}", f"Walk {i} miles over {'hills and ' * 7}dales.") for i in range(5)),
    ]
    source = "".join(f'def {name}():\n    """{text}"""\n' for name, text in functions)
    alone = 'class Alone:\n    def sing(self):\n        """Sing all alone."""\n'
    modules = [("a.py", ast.parse(source)), ("b.py", ast.parse(alone + source.replace("a nap", "two naps")))]
    monkeypatch.setattr(qa, "stdlib_modules", lambda *_: modules)
    data = questions_about_functions()
    first = next(row for row in data.train + data.validation if "sit" in row[0])
    assert first[1].startswith("sit()\n    Sit down on the mat.\nnap()\n    Take ")
    asked = [row[0].split()[2] for row in data.train + data.validation]
    assert sorted(asked) == ["nap", "nap", "sit", *(f"walk{i}" for i in range(5))]
    lists = {row[1] for row in data.train + data.validation}
    assert [text.count("()") for text in sorted(lists)] == [3, 3, 2, 2]
    assert max(map(len, lists)) <= 260


def test_whole_files_are_held_out(monkeypatch):
    packages = ("email", "json", "xml")
    held = {row[1] for row in questions_about_functions(seed=0, packages=packages).validation}
    assert held
    monkeypatch.setattr(qa, "split_rows", lambda rows, *_: (rows, []))
    for item in list(stdlib_modules(*packages)):
        monkeypatch.setattr(qa, "stdlib_modules", lambda item=item: iter([item]))
        contexts = {row[1] for row in questions_about_functions(seed=0).train}
        # a question with the same answer in an earlier file is kept there alone
        assert contexts <= held or not contexts & held


@given(
    words=st.lists(st.sampled_from(WORDS), min_size=1, max_size=30),
    longest=st.integers(9, 40),
    data=st.data(),
)
@settings(max_examples=150, deadline=None)
def test_the_answers_tokens_stand_for_the_answer(words, longest, data):
    context = " ".join(words)
    ids, spans = TOKENIZER.encode_with_spans(context)
    if not len(ids):
        return
    first = data.draw(st.integers(0, len(ids) - 1))
    last = data.draw(st.integers(first, len(ids) - 1))
    answer = (int(spans[first, 0]), int(spans[last, 1]))
    windows = read(TOKENIZER, "What do cats do?", context, longest, answer, row=7)
    room = longest - len(TOKENIZER.encode("What do cats do?")[: longest // 2 - 2]) - 3
    assert (len(windows) == 1) == (len(ids) <= room)
    covered = set()
    for window in windows:
        assert len(window.ids) == len(window.segments) == len(window.spans) <= longest
        assert window.row == 7
        assert window.ids[0] == TOKENIZER.cls_id
        assert (
            np.flatnonzero(window.ids == TOKENIZER.sep_id)[[0, -1]]
            == [window.segments.argmax() - 1, len(window.ids) - 1]
        ).all()
        within = window.spans[:, 0] >= 0
        covered |= {tuple(span) for span in window.spans[within]}
        assert (window.segments[within] == 1).all()
        if window.first >= 0:
            begin, end = window.spans[window.first, 0], window.spans[window.last, 1]
            # tokens of one character, such as of a CJK sign in a word, may share their place in the text
            assert context[begin:end] == context[answer[0] : answer[1]]
        else:
            assert window.first == window.last == -100
            assert not {tuple(spans[first]), tuple(spans[last])} <= {
                tuple(span) for span in window.spans[within]
            }
    assert covered == {tuple(span) for span in spans}
    if last - first < room // 2:
        assert any(window.first >= 0 for window in windows)


def test_only_telling_tokens_of_the_question_are_marked():
    on = int(TOKENIZER.encode("on")[0])
    window = read(TOKENIZER, "who sits on mats", "dogs sit on mats", 30, unmarked=[on])[0]
    asked = TOKENIZER.encode("who sits on mats").tolist()
    marked = window.ids[window.segments == 2].tolist()
    assert marked
    assert set(marked) == (set(window.ids[window.spans[:, 0] >= 0].tolist()) & set(asked)) - {on}
    assert (window.segments[: len(asked) + 2] == 0).all()
    assert set(read(TOKENIZER, "who sits on mats", "dogs sit on mats", 30)[0].segments) == {0, 1}


def test_a_long_question_leaves_room_for_the_text():
    window = read(TOKENIZER, "cats " * 50, "mats", 20)[0]
    assert len(window.ids) <= 20
    assert (window.spans[:, 0] >= 0).sum() >= 1
    with pytest.raises(ValueError, match="holds nothing"):
        read(TOKENIZER, "cats?", " \n", 20)


def test_the_best_span_lies_in_the_text_and_ends_after_it_starts(monkeypatch):
    monkeypatch.setattr(qa, "LONGEST_ANSWER", 3)
    context = "cats sit on mats"
    window = read(TOKENIZER, "who?", context, 30)[0]
    places = np.flatnonzero(window.spans[:, 0] >= 0)
    T = len(window.ids) + 2  # padded
    start, end = np.zeros((1, T), "float32"), np.zeros((1, T), "float32")
    start[0, [0, 1, places[1]]], end[0, [2, places[0], places[2], T - 1]] = (9, 8, 3), (9, 7, 2, 9)
    start[0, T - 1] = 9
    end[0, places[1] + 3] = 6  # too far from the start
    found = qa.best_spans(lambda *_: BERTSpanOutput(Tensor(start), Tensor(end)), [window], None, None, None)
    # places[0]: as start 0, as end 7 → 7; places[1] to places[2]: 3 + 2 = 5; 0 + 6 = 6
    assert found == [(7.0, int(window.spans[places[0], 0]), int(window.spans[places[0], 1]))]
    end[0, places[0]] = 0
    end[0, places[1] + 3] = 0
    found = qa.best_spans(lambda *_: BERTSpanOutput(Tensor(start), Tensor(end)), [window], None, None, None)
    assert found[0][0] == 5.0
    assert (
        context[found[0][1] : found[0][2]] == context[window.spans[places[1], 0] : window.spans[places[2], 1]]
    )


@given(seed=st.integers(0, 10**6), longest=st.sampled_from([1, 2, 3, 40]))
@settings(max_examples=60, deadline=None)
def test_the_best_span_is_that_of_all_spans(seed, longest):
    rng = np.random.default_rng(seed)
    windows = [read(TOKENIZER, "who?", text, 30)[0] for text in ("cats sit on mats", "all dogs run to cats")]
    T = max(len(window.ids) for window in windows)
    start, end = rng.integers(0, 10**6, (2, 2, T)).astype("float64")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(qa, "LONGEST_ANSWER", longest)
        given = []
        output = BERTSpanOutput(Tensor(start), Tensor(end))
        found = qa.best_spans(lambda *args: given.append(args) or output, windows, "ids", "mask", "segments")
    assert given == [("ids", "mask", "segments")]
    for i, window in enumerate(windows):
        places = np.flatnonzero(window.spans[:, 0] >= 0)
        score, first, last = max(
            (start[i, a] + end[i, b], a, b) for a in places for b in places if a <= b < a + longest
        )
        assert found[i] == (score, window.spans[first, 0], window.spans[last, 1])


def test_the_model_is_given_all_of_a_batch():
    data = TaskData([("Who?", "The cat " + "sat " * n, "cat", None) for n in (1, 30, 7)], [], "")
    model, tokenizer = QuestionAnswering.new_model(data, np.random.default_rng(0))
    task = QuestionAnswering(data, model, tokenizer, 3, 0)
    ids, mask, segments, places = task.collate(task.train)

    class Model:
        def loss(self, input_ids, labels, attention_mask, token_type_ids):
            assert input_ids is ids
            assert labels is places
            assert attention_mask is mask
            assert token_type_ids is segments
            return 7.0

    assert task.loss(Model(), ids, mask, segments, places) == 7.0
    assert mask.sum(axis=1).tolist() == [len(window.ids) for window in task.train]


@pytest.mark.parametrize(
    ("answer", "truth", "scores"),
    [
        ("The  cat!", "a cat", (1, 1)),
        ("black cat", "cat", (0, 2 / 3)),
        ("cat cat dog", "cat cow", (0, 2 / 5)),  # one in common: P = 1/3, R = 1/2
        ("dog", "cat", (0, 0)),
        ("", "cat", (0, 0)),
        ("the", "a", (1, 1)),
        ("theatre", "atre", (0, 0)),  # articles are words
    ],
)
def test_scores_on_known_cases(answer, truth, scores):
    assert answer_scores(answer, truth) == pytest.approx(scores)


def test_the_baseline_is_the_best_of_three_trivial_methods():
    text = "One is here. Two is red. Three is blue."
    train = (
        [("q", text, "here", None)] + [("q", text, "blue", None)] * 2 + [("q", text, "Two is red", None)] * 3
    )

    def task(validation):
        data = TaskData(train, validation, "")
        model, tokenizer = QuestionAnswering.new_model(data, np.random.default_rng(0))
        return QuestionAnswering(data, model, tokenizer, 2, 0)

    assert task([("q", "A b. C d. E f.", "C d.", None)]).baseline() == (
        "always sentence 2",
        {"exact match": 1.0, "F1": 1.0},
    )
    name, scores = task([("Is e here?", "A b. C d. e f.", "e f", None)]).baseline()
    assert name == "the sentence with most words of the question"
    assert scores == {"exact match": 1.0, "F1": 1.0}
    name, scores = task([("q", "It is here and blue.", "blue", None)]).baseline()
    assert name == "the most frequent answer that occurs in the text"
    assert scores == {"exact match": 1.0, "F1": 1.0}


def test_a_sentence_ends_with_its_sign_or_line():
    assert qa._sentences("Go! Where? To 3.5 it is.  Yes\nNo") == [
        "Go!",
        "Where?",
        "To 3.5 it is.",
        "Yes",
        "No",
    ]


def test_a_text_is_read_in_windows_and_answered_once():
    rows = [("Who sat?", "The dog lay. " * 30 + "The cat sat. " + "A cow ran. " * 30, "The cat", None)] * 3
    data = TaskData(rows, rows, "")
    model, tokenizer = QuestionAnswering.new_model(data, np.random.default_rng(0))
    task = QuestionAnswering(data, model, tokenizer, 2, 0)
    assert len(task.validation) > 3
    assert 3 <= len(task.train) <= 6
    batches = [task.collate(task.validation[i : i + 2]) for i in range(0, len(task.validation), 2)]
    assert sum(task.count(*batch) for batch in batches) == len(task.train)
    assert np.isfinite(task.validation_loss(model))
    scores = task.score(model)
    assert set(scores) == {"exact match", "F1"}
    assert len(task._answers(model, task.validation)) == 3
    line = QuestionAnswering.predict(model, tokenizer, task.facts(), *rows[0][:2])[0]
    answer, start, end = re.fullmatch(r"(?s)(.*)  \(characters (\d+) to (\d+)\)", line).groups()
    assert rows[0][1][int(start) : int(end)] == answer


def test_a_question_is_answered_by_the_best_window_of_all(monkeypatch):
    context = "The dog lay. " * 40 + "The cat sat. " + "A cow ran. " * 40
    rows = [(f"Who {verb}?", context, f"The {name}", None) for verb, name in [("sat", "cat"), ("lay", "dog")]]
    rows += [(f"Who {verb}?", "The cat ate.", "The cat", None) for verb in ("ran", "hid", "ate")]
    data = TaskData(rows, rows[:2], "")
    model, tokenizer = QuestionAnswering.new_model(data, np.random.default_rng(0))
    task = QuestionAnswering(data, model, tokenizer, 2, 0)
    assert {tokenizer.tokens[i] for i in task.unmarked} == {"who", "?"}  # each verb is in a fifth
    seen = []

    def best(model, windows, ids, mask, segments):
        seen.extend((window.ids.tolist(), window.segments.tolist(), model.training) for window in windows)
        inside = [window.spans[window.spans[:, 0] >= 0] for window in windows]
        return [
            (float("cat sat" in context[a[0, 0] : a[-1, 1]]), int(a[0, 0]), int(a[-1, 1])) for a in inside
        ]

    monkeypatch.setattr(qa, "best_spans", best)
    assert all("cat sat" in answer for answer in task._answers(model, task.validation).values())
    seen.clear()
    assert "cat sat" in QuestionAnswering.predict(model, tokenizer, task.facts(), *rows[0][:2])[0]
    windows = [window for window in task.validation if window.row == 0]
    assert seen == [(window.ids.tolist(), window.segments.tolist(), False) for window in windows]
    assert model.training
    assert max(max(segments) for _, segments, _ in seen) == 2
    assert max(len(ids) for ids, _, _ in seen) == 128


def test_the_answer_that_was_meant_is_learned_where_it_occurs_twice():
    rows = [("Who?", "A cat, a cat, a cat.", "cat", start) for start in (None, 9, 16)]
    data = TaskData(rows, rows, "")
    model, tokenizer = QuestionAnswering.new_model(data, np.random.default_rng(0))
    task = QuestionAnswering(data, model, tokenizer, 2, 0)
    assert [window.spans[window.first].tolist() for window in task.train] == [[2, 5], [9, 12], [16, 19]]


def test_samples_say_what_is_found_and_what_is_true(monkeypatch):
    rows = [(f"Who is {name}?", f"{name} is a cat.", "a cat", None) for name in ("Tom", "Jim")]
    data = TaskData(rows, rows, "")
    model, tokenizer = QuestionAnswering.new_model(data, np.random.default_rng(0))
    task = QuestionAnswering(data, model, tokenizer, 2, 0)
    monkeypatch.setattr(qa, "best_spans", lambda model, windows, *_: [(0.0, 0, 6)] * len(windows))
    lines = task.samples(model, 2)
    shown = dict(zip(lines[::2], lines[1::2], strict=True))
    assert shown == {
        "Who is Tom?": "  says 'Tom is', and it is 'a cat'",
        "Who is Jim?": "  says 'Jim is', and it is 'a cat'",
    }


def test_questions_about_one_text_stay_together():
    rows = [(f"q{i}?", f"text {i % 7}", "text", None) for i in range(70)]
    train, validation = split_rows(rows, QuestionAnswering.document, seed=0)
    assert len(validation) == 10
    assert not {row[1] for row in train} & {row[1] for row in validation}


def test_a_trained_encoder_gets_a_head_and_a_trained_head_goes_on():
    rng = np.random.default_rng(0)
    config = BERTConfig(TOKENIZER.vocab_size, 24, 12, 2, 3, 24)
    data = TaskData([("who", "cats sit", "cats", 0)], [], "")
    model = QuestionAnswering.with_head(BERT(config), data, rng)
    assert isinstance(model, BERTForQuestionAnswering)
    assert model.encoder.pooler is None
    assert QuestionAnswering.with_head(model, data, rng) is model
    task = QuestionAnswering(data, model, TOKENIZER, 1, 0)
    assert task.unmarked is None
    assert task.batch(0)[2].max() == 1
    assert task.longest == 24
    longer = BERTForQuestionAnswering(dataclasses.replace(config, max_positions=500))
    assert QuestionAnswering(data, longer, TOKENIZER, 1, 0).longest == 384
    with pytest.raises(ValueError, match="the model given is a GPT"):
        QuestionAnswering.with_head(GPT(GPTConfig(11, 5, 8, num_heads=2)), data, rng)


def test_it_learns_to_find_the_named_line():
    rng = np.random.default_rng(1)
    names, verbs = ["red", "blue", "green", "black", "white"], ["runs", "sits", "eats", "sings", "sleeps"]

    def rows(number):
        made = []
        for _ in range(number):
            order = rng.permutation(names)[:3]
            doing = [f"{rng.choice(verbs)} {rng.choice(verbs)}" for _ in order]
            context = "".join(f"{name}: {what}\n" for name, what in zip(order, doing, strict=True))
            i = rng.integers(3)
            start = context.index(f"{order[i]}: ") + len(order[i]) + 2
            made.append((f"What does {order[i]} do?", context, doing[i], start))
        return made

    data = TaskData(rows(400), rows(60), "made up")
    model, tokenizer = QuestionAnswering.new_model(data, np.random.default_rng(0))
    task = QuestionAnswering(data, model, tokenizer, 16, 0)
    optimizer = AdamW(decay_groups(model, 0.1), lr=1e-3)
    for step in range(100):
        model.zero_grad()
        task.loss(model, *task.batch(step)).backward()
        optimizer.step()
    scores, (_, baseline) = task.score(model), task.baseline()
    assert baseline["exact match"] < 0.6 < 0.9 < scores["exact match"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"context": "a cat", "answer": "dog"}, "line 2: the answer 'dog' does not occur in the context"),
        ({"context": "a cat", "answer": "cat", "start": 3}, "line 2: the answer 'cat' does not stand at ch"),
        ({"context": "a cat", "answer": "cat", "start": "x"}, "line 2: start must be an integer, not 'x'"),
        ({"context": "a cat!", "answer": "cat", "start": -4}, "line 2: the answer 'cat' does not stand at"),
        ({"context": "a cat", "answer": "cat", "start": True}, "line 2: start must be an integer, not True"),
    ],
)
def test_an_answer_that_is_not_in_the_text_is_told_with_its_line(tmp_path, fields, message):
    good = {"question": "who?", "context": "cat cat", "answer": "cat"}
    lines = [{**good, "start": 4}, {"question": "who?", **fields}]
    path = tmp_path / "r.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    with pytest.raises(TextError, match=re.escape(message)):
        read_rows(path, QuestionAnswering)
    path.write_text("\n".join(map(json.dumps, [lines[0], {**good, "start": ""}])), encoding="utf-8")
    assert read_rows(path, QuestionAnswering) == [
        ("who?", "cat cat", "cat", 4),
        ("who?", "cat cat", "cat", None),
    ]
