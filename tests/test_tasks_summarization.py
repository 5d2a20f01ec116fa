"""Summarization: ROUGE, docstrings without leaks, and a model that reads titles."""

import numpy
import pytest

from tinytransformer.tasks import TASKS, TaskData, read_rows
from tinytransformer.tasks.summarization import (
    Summarization,
    docstring_summaries,
    in_words,
    lead_sentence,
    noisy_sentences,
    rouge_1,
    rouge_l,
)
from tinytransformer.text import TextError

ROWS = [
    ("It blocks until done.", "Wait for all tasks", "wait_all(tasks)"),
    ("", "Close the file", "close()"),
    ("Two lines.\n\nAnd more.", "Read two lines", "readTwo"),
]


@pytest.fixture(scope="module")
def docstrings():
    return docstring_summaries(seed=0)


# metrics; the values are those of the package rouge-score 0.1.2


@pytest.mark.parametrize(
    ("written", "target", "one", "longest"),
    [
        ("the the the cat", "the cat sat on the mat", 0.6, 0.4),  # "the" counts twice, not three times
        ("cat the", "the cat", 1.0, 0.5),
        ("a b c d e", "a x c y e", 0.6, 0.6),  # with gaps
        ("", "the cat", 0.0, 0.0),
        ("the cat", "", 0.0, 0.0),
        ("", "", 0.0, 0.0),
        ("Wait_for THE, tasks!", "wait for the tasks", 1.0, 1.0),
    ],
)
def test_rouge(written, target, one, longest):
    assert rouge_1(written, target) == pytest.approx(one)
    assert rouge_l(written, target) == pytest.approx(longest)
    assert rouge_1(target, written) == pytest.approx(one)
    assert rouge_l(target, written) == pytest.approx(longest)


def test_rouge_counts_chinese_characters_as_words():
    assert rouge_1("注意力", "注意") == pytest.approx(4 / 5)


def test_lead_sentence():
    assert lead_sentence("  See PEP 3.11 now. Then go.") == "See PEP 3.11 now."
    assert lead_sentence("A title\n\nand text.") == "A title"
    assert lead_sentence("一句。两句。") == "一句。"
    assert lead_sentence("Is it? No.") == "Is it?"
    assert lead_sentence("line one\nline two. Three") == "line one\nline two."


# data


def test_docstrings_do_not_leak(docstrings):
    train, validation = docstrings.train, docstrings.validation
    assert len(train) > 3000
    assert len(validation) > 150
    for column in (0, 1):
        seen = {row[column] for row in train} - {""}
        assert not [row for row in validation if row[column] in seen]
    assert len(set(validation)) == len(validation)
    assert all(source and target and title for source, target, title in validation)


def test_a_source_does_not_hold_its_first_line(docstrings):
    """Else the first sentence would be the target, or nearly so."""
    copies = [rouge_l(lead_sentence(source), target) for source, target, _ in docstrings.validation]
    assert numpy.mean(copies) < 0.25
    assert not any("\n" in target for _, target, _ in docstrings.train)


def test_known_docstrings(docstrings):
    """``textwrap.TextWrapper.fill`` and the one-liner of ``queue.Queue.empty``'s neighbours."""
    rows = {row[2]: row for row in docstrings.train + docstrings.validation}
    title = "decode_header(header)"
    assert rows[title][1] == "Decode a message header value without converting charset."
    assert rows[title][0].startswith("Returns a list of (string, charset) pairs")


def test_whole_files_are_held_out(docstrings, monkeypatch):
    """With titles that name their file, none is on both sides."""
    import ast

    from tinytransformer.tasks import summarization

    def two_functions(i):
        body = "\n".join(f"def f{i}x{j}():\n    '''Line {i} {j}.\n\n    Text {i} {j}.'''" for j in range(3))
        return f"file{i}.py", ast.parse(body)

    monkeypatch.setattr(summarization, "stdlib_modules", lambda: map(two_functions, range(20)))
    data = docstring_summaries(seed=1)
    files = [{row[2].split("x")[0] for row in rows} for rows in (data.train, data.validation)]
    assert len(data.train) + len(data.validation) == 60
    assert len(files[1]) == 2
    assert not files[0] & files[1]
    assert docstring_summaries(seed=2) != data


def test_bad_rows_of_a_file(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("source,target\nA text.,A summary\n ,nothing\n", encoding="utf-8")
    with pytest.raises(TextError, match="line 3: source must be a text that is not empty"):
        read_rows(path, Summarization)


# the task


def test_names_are_read_as_words():
    assert in_words("is_alive(SyncManager, HTTPError2x)") == "is alive(sync manager, httperror2x)"
    data = TaskData(ROWS, ROWS, "three")
    model, tokenizer = Summarization.new_model(data, numpy.random.default_rng(0))
    task = Summarization(data, model, tokenizer, batch_size=3, seed=0)
    input_ids, attention_mask, _, labels = task.collate(task.train[:3])
    sources = {tokenizer.decode(ids[mask][:-1]) for ids, mask in zip(input_ids, attention_mask, strict=True)}
    assert " wait all(tasks)\nit blocks until done." in sources
    assert " close()\n" in sources
    targets = {tokenizer.decode(row[row != -100][:-1]) for row in labels}
    assert targets == {" wait for all tasks", " close the file", " read two lines"}
    assert Summarization.text_of(tokenizer, tokenizer.encode(" wait for all")) == "Wait for all"


def test_half_of_the_rows_restore_sentences_of_the_training_texts():
    texts = [f"These are {word} words of text. Then {word} others follow here." for word in "abcde"]
    rows = [(text, f"Target {i}", None) for i, text in enumerate(texts)]
    data = TaskData(rows, [("Held out text is never to be seen.", "It is held out", None)], "")
    model, tokenizer = Summarization.new_model(data, numpy.random.default_rng(0))
    task = Summarization(data, model, tokenizer, batch_size=2, seed=0)
    assert len(task.train) == 2 * len(rows)
    assert len(task.validation) == 1
    sentences = {sentence.lower() for text in texts for sentence in text.replace(".", ".|").split("|")}
    for source, target in task.train[len(rows) :]:
        sentence = tokenizer.decode(target[:-1]).strip()
        assert sentence in {s.strip() for s in sentences}
        assert set(tokenizer.decode(source[:-1]).split()) <= set(sentence.split())


def test_noise_drops_and_shuffles_words():
    words = [f"w{i}" for i in range(17)]
    rows = noisy_sentences([" ".join(words), "too short it", " ".join(words)], numpy.random.default_rng(0))
    ((source, target),) = rows
    assert target == " ".join(words)
    kept = source.split()
    assert 4 < len(kept) < 17
    assert kept != sorted(kept, key=words.index)
    assert len(set(kept)) == len(kept)


def test_long_sources_are_cut_and_still_end():
    rows = [("word " * 300, "many words " * 40), ("x", "y")]
    data = TaskData(rows, rows, "long")
    model, tokenizer = Summarization.new_model(data, numpy.random.default_rng(0))
    task = Summarization(data, model, tokenizer, batch_size=2, seed=0)
    assert [len(part) for part in task.train[0]] == [
        Summarization.longest_source,
        Summarization.longest_target,
    ]
    assert all(part[-1] == 3 for example in task.train for part in example)
    assert set(task.score(model)) == {"ROUGE-1", "ROUGE-L"}


def test_the_baseline_is_the_better_of_lead_and_name():
    def baseline(rows):
        data = TaskData(ROWS, rows, "")
        model, tokenizer = Summarization.new_model(data, numpy.random.default_rng(0))
        return Summarization(data, model, tokenizer, batch_size=2, seed=0).baseline()

    name, scores = baseline([("Wait for it. Then go.", "Wait for it", "go_now(x) of Queue")])
    assert (name, scores) == ("the first sentence", {"ROUGE-1": 1.0, "ROUGE-L": 1.0})
    name, scores = baseline([("Some text.", "Go now", "goNow(x) of Queue")])
    assert (name, scores["ROUGE-1"]) == ("the name in words", 1.0)
    name, scores = baseline([("Some text.", "No text", None)])
    assert (name, scores["ROUGE-1"]) == ("the first sentence", 0.5)


def test_the_commands_know_the_task():
    assert TASKS["summarize"] is Summarization
