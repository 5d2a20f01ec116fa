"""What is learned from text alone: masks and pairs are fresh, nothing leaks, parts weigh what they should."""

import itertools
import math

import numpy as np
import pytest

import tinytransformer as tt
from tinytransformer.models import T5, BERTConfig, BERTForPretraining, T5Config
from tinytransformer.optim import AdamW
from tinytransformer.tasks import LanguageModelling, MaskedLanguageModelling, SpanCorruption
from tinytransformer.tasks.pretraining import DocumentTokens, documents_in, split_documents, without_context
from tinytransformer.text import ByteTokenizer, WordPieceTokenizer
from tinytransformer.training.parallel import ParallelBatch

WORDS = [f"w{i}" for i in range(60)]
TOKENIZER = WordPieceTokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])
V = TOKENIZER.vocab_size
PAD, UNKNOWN, CLS, SEP, MASK = TOKENIZER.special_ids


def documents(number, low, high, rng):
    """Documents of 2 to 6 sentences of 2 to 7 tokens from low to high."""
    return [
        [rng.integers(low, high, rng.integers(2, 8)) for _ in range(rng.integers(2, 7))]
        for _ in range(number)
    ]


def masked(batch_size=7, seed=0, number=23, **changed):
    """A task whose documents to train on have tokens below 40, and those to validate on tokens from 40."""
    rng = np.random.default_rng(1)
    parts = documents(number, 5, 40, rng), documents(11, 40, V, rng)
    return MaskedLanguageModelling(*parts, TOKENIZER, batch_size, max_length=17, seed=seed, **changed)


def spans(batch_size=5, context=29, seed=0, **changed):
    """The same, with an end token 60 and sentinels 61 to 65."""
    rng = np.random.default_rng(1)
    parts = [[np.append(rng.integers(*ids, 31), 60) for _ in range(5)] for ids in ((0, 40), (40, 60))]
    return SpanCorruption(*parts, 60, range(61, 66), batch_size, context, seed, **changed)


def originals(ids, labels):
    return np.where(labels >= 0, labels, ids)


def equal(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def bert(seed=3, dropout=0.0, dtype="float64"):
    config = BERTConfig(V, max_positions=17, d_model=6, num_layers=2, num_heads=3, d_ff=11, dropout=dropout)
    return perturbed(BERTForPretraining(config, np.random.default_rng(seed), dtype))


def t5(seed=3, dropout=0.0, dtype="float64"):
    config = T5Config(66, d_model=6, d_kv=5, d_ff=11, num_layers=2, num_heads=3, dropout=dropout)
    return perturbed(T5(config, np.random.default_rng(seed), dtype))


def perturbed(model):
    rng = np.random.default_rng(5)
    for p in model.parameters():
        p.data[...] += rng.normal(0, 0.3, p.shape)
    return model


TASKS = {"masked": (masked, bert), "spans": (spans, t5)}


# --- documents ---


def test_documents_come_back_from_their_tokens():
    texts = ["One. Two! 三。四？Five", "Six? \n\n Seven 7.5.", " \n\n", "Eight"]
    encoded = list(DocumentTokens(ByteTokenizer(), 0, sentences=True).encode_chunks(texts))
    found = documents_in(np.concatenate(encoded), 0)
    decoded = [[ByteTokenizer().decode(sentence).strip() for sentence in document] for document in found]
    assert decoded[:2] == [["One.", "Two!", "三。", "四？", "Five"], ["Six?", "Seven 7.5."]]
    assert decoded[-1] == ["Eight"]
    whole = list(DocumentTokens(ByteTokenizer(), 0).encode_chunks(["One. Two", "", "Three"]))
    assert [bytes(ids.tolist()) for ids in whole] == [b"One. Two\0", b"Three\0"]


@pytest.mark.parametrize("fraction", [0.03, 0.1, 0.5])
def test_each_document_is_on_one_side_and_the_kept_ones_are_neighbours_from_all_over(fraction):
    rng = np.random.default_rng(2)
    whole = [np.full(rng.integers(1, 9), i) for i in range(3000)]
    train, validation = split_documents(whole, fraction)
    sides = [[int(document[0]) for document in side] for side in (train, validation)]
    assert sorted(sides[0] + sides[1]) == list(range(3000))
    assert not set(sides[0]) & set(sides[1])
    assert sum(map(len, validation)) / sum(map(len, whole)) == pytest.approx(fraction, rel=0.1)
    runs = [
        len(list(run)) for _, run in itertools.groupby(enumerate(sides[1]), lambda pair: pair[1] - pair[0])
    ]
    assert len(runs) == round(100 * min(fraction, 1 - fraction))
    assert min(runs) > 15
    assert max(np.diff(sides[1])) < 1.3 * 3000 / len(runs)
    as_sentences = [[document] for document in whole]  # tokens count, not sentences
    assert [len(side) for side in split_documents(as_sentences, fraction)] == [len(train), len(validation)]


def test_a_split_that_cannot_be():
    with pytest.raises(ValueError, match="1 to validate on are too few"):
        split_documents([np.zeros(7)] * 3, 0.4)
    for fraction in (0, 1, math.nan):
        with pytest.raises(ValueError, match="must lie between 0 and 1"):
            split_documents([np.zeros(7)] * 9, fraction)


# --- what all tasks promise ---


@pytest.mark.parametrize("kind", TASKS)
def test_a_batch_depends_on_seed_and_step_alone(kind):
    make, _ = TASKS[kind]
    whole = make()
    batches = [whole.batch(step) for step in range(40)]
    for step in (39, 0, 17, 3):
        assert equal(make().batch(step), batches[step])
        assert equal(whole.batch(step), batches[step])
    assert len({b"".join(array.tobytes() for array in batch) for batch in batches}) == 40
    assert not equal(make(seed=1).batch(0), batches[0])
    assert all(equal(a, b) for a, b in zip(make().validation, whole.validation, strict=True))


@pytest.mark.parametrize("kind", TASKS)
def test_what_is_validated_on_is_never_trained_on_and_the_other_way_round(kind):
    task = TASKS[kind][0]()
    for batches, low, high in ((map(task.batch, range(60)), 0, 40), (task.validation, 40, 60 + 5)):
        seen = set()
        for batch in batches:
            if kind == "masked":
                seen |= set(originals(batch[0], batch[3]).flat) - set(TOKENIZER.special_ids)
            else:
                seen |= {*batch[0].flat, *batch[1].flat} - set(range(60, 66))
        assert len(seen) > 15
        assert low <= min(seen)
        assert max(seen) < high


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("kind", TASKS)
def test_parts_on_threads_weigh_as_many_targets_as_they_have(kind, threads):
    make, model_of = TASKS[kind]
    task, model = make(), model_of()
    batch = task.batch(4)
    if kind == "masked":
        batch[3][:3] = -100  # a part without a hidden token, and others with different numbers
        batch[3][3] = 7
        batch[1][...] = True
    else:
        batch[1][0, 2:] = -100
        task.count = lambda inputs, labels: int((labels >= 0).sum())
    expected = task.loss(model, *batch)
    expected.backward()
    wanted = [p.grad.numpy().copy() for p in model.parameters()]
    model.zero_grad()
    parallel = ParallelBatch(model, task, threads, "threads")
    with parallel.working():
        found = parallel.add(batch, scale=0.25)
    assert found == pytest.approx(0.25 * expected.item(), rel=1e-10)
    for p, gradient in zip(model.parameters(), wanted, strict=True):
        np.testing.assert_allclose(p.grad.numpy(), 0.25 * gradient, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("kind", TASKS)
def test_validation_has_no_dropout_and_leaves_no_trace(kind):
    make, model_of = TASKS[kind]
    task, model = make(), model_of(dropout=0.5)
    state = model.rng.bit_generator.state
    plain = task.validation_loss(model_of())
    for mode in (True, False):
        model.train(mode)
        assert task.validation_loss(model) == pytest.approx(plain, rel=1e-12)
        assert {module.training for module in model.modules()} == {mode}
    assert model.rng.bit_generator.state == state
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("kind", TASKS)
def test_training_on_text_with_an_order_beats_every_guess_without_context(kind):
    """Documents count upwards, each from its own start; sentences of others start elsewhere."""
    rng = np.random.default_rng(7)
    starts = rng.integers(0, 48, 90)
    if kind == "masked":
        texts = [[5 + (np.arange(k, k + 4) + start) % 48 for k in (0, 4, 8)] for start in starts]
        task = MaskedLanguageModelling(texts[:70], texts[70:], TOKENIZER, 16, max_length=15)
        config = BERTConfig(V, max_positions=15, d_model=32, num_layers=1, num_heads=2, d_ff=64, dropout=0.0)
        model, rate, what = BERTForPretraining(config, np.random.default_rng(0)), 8e-3, "masked_loss"
        steps = 1500
    else:
        texts = [np.append((np.arange(17) + start) % 48, 60) for start in starts]
        task = SpanCorruption(texts[:70], texts[70:], 60, range(61, 66), 16, context=13)
        config = T5Config(66, d_model=32, d_kv=16, d_ff=64, num_layers=1, num_heads=2, dropout=0.0)
        model, rate, what = T5(config, np.random.default_rng(0)), 8e-3, "span_loss"
        steps = 700
    before, trivial = task.scores(model), task.baseline()
    assert before.keys() == trivial.keys()
    assert before[what] > trivial[what] > 3
    optimizer = AdamW(model.parameters(), lr=rate, betas=(0.9, 0.99))
    for step in range(steps):
        optimizer.zero_grad()
        task.loss(model, *task.batch(step)).backward()
        optimizer.step()
    after = task.scores(model)
    assert after[what] < 0.6 * trivial[what]
    assert task.validation_loss(model) < 0.7 * sum(v for k, v in trivial.items() if k.endswith("loss"))
    if kind == "masked":
        assert after["masked_accuracy"] > 0.3 > 3 * trivial["masked_accuracy"]


# --- masked language modelling and next sentences ---


def test_pairs_are_whole_and_labels_only_where_tokens_are_hidden():
    task = masked()
    hidden, as_mask, as_was, tokens = 0, 0, 0, 0
    for step in range(80):
        ids, attention_mask, segments, labels, pair_labels = task.batch(step)
        assert ids.shape == attention_mask.shape == segments.shape == labels.shape
        assert ids.shape[1] <= 17
        assert pair_labels.shape == (7,)
        assert set(pair_labels) <= {0, 1}
        whole = originals(ids, labels)
        for row, real, segment in zip(whole, attention_mask, segments, strict=True):
            assert (row[~real] == PAD).all()
            row, segment = row[real], segment[real]
            assert (row[0], row[-1]) == (CLS, SEP)
            (middle, _) = np.flatnonzero(row == SEP)
            assert (segment == (np.arange(len(row)) > middle)).all()
        assert not np.isin(labels[labels >= 0], TOKENIZER.special_ids).any()
        assert (ids[labels < 0] != MASK).all()
        there = labels >= 0
        hidden += there.sum()
        as_mask += (ids[there] == MASK).sum()
        as_was += (ids[there] == labels[there]).sum()
        tokens += (whole > MASK).sum()
    assert hidden / tokens == pytest.approx(0.15, abs=0.02)
    assert as_mask / hidden == pytest.approx(0.8, abs=0.05)
    assert as_was / hidden == pytest.approx(0.1, abs=0.04)
    assert task.hidden_per_pair == pytest.approx(hidden / 80 / 7, rel=0.1)
    assert task.tokens_per_batch == pytest.approx((tokens + 3 * 80 * 7) / 80, rel=0.05)


def test_every_epoch_has_other_masks_other_pairs_and_another_order():
    task = masked(number=101)
    epochs = []
    for epoch in range(3):
        seen = {}
        for step in range(task.batches_per_epoch):
            ids, _, _, labels, pair_labels = task.batch(epoch * task.batches_per_epoch + step)
            rows = zip(originals(ids, labels), labels >= 0, pair_labels, strict=True)
            for row, hidden, random in rows:
                seen[row[row != PAD].tobytes()] = (hidden[row != PAD].tobytes(), int(random))
        epochs.append(seen)
    differ = False
    for one, other in itertools.combinations(epochs, 2):
        common = one.keys() & other.keys()
        assert len(common) > 3
        assert len(common) < 0.9 * len(one)
        assert sum(one[pair][0] == other[pair][0] for pair in common) < 0.5 * len(common)
        order = [pair for pair in one if pair in common], [pair for pair in other if pair in common]
        differ = differ or order[0] != order[1]
    assert differ
    shares = [np.mean([random for _, random in seen.values()]) for seen in epochs]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.15)


def test_a_pair_follows_where_its_label_says_so():
    task = masked()
    after = {}  # of each sentence the one that follows
    for document in task.train_documents:
        flat = np.concatenate(document).tolist()
        after.setdefault(tuple(flat), None)
    for step in range(20):
        ids, attention_mask, segments, labels, pair_labels = task.batch(step)
        for row, real, segment, random in zip(
            originals(ids, labels), attention_mask, segments, pair_labels, strict=True
        ):
            a, b = (row[real & (segment == s) & (row > MASK)].tolist() for s in (0, 1))
            if len(a) + len(b) == 14:
                continue  # it may have been cut where they meet
            together = a + b
            joined = any(
                list(flat[i : i + len(together)]) == together
                for flat in after
                for i in range(len(flat) - len(together) + 1)
            )
            assert joined == (random == 0)


def test_the_loss_is_the_sum_of_both_means_where_as_many_tokens_are_hidden_as_on_average():
    task, model = masked(), bert()
    ids, attention_mask, segments, labels, pair_labels = batch = task.batch(2)
    task.hidden_per_pair = (labels >= 0).sum() / 7
    expected = model.loss(ids, (labels, pair_labels), attention_mask, segments)
    assert task.loss(model, *batch).item() == pytest.approx(expected.item(), rel=1e-12)


def test_scores_are_those_of_each_pair_alone():
    task, model = masked(evaluate_pairs=11), bert()
    assert sum(len(batch[0]) for batch in task.validation) == 11
    nats, right, hidden, pair_nats, pair_right = 0.0, 0, 0, 0.0, 0
    for batch in task.validation:
        for ids, real, segments, labels, random in zip(*batch, strict=True):
            with tt.no_grad():
                output = model(ids[None, real], token_type_ids=segments[None, real])
                log_p = tt.log_softmax(output.logits).numpy()[0]
                pair = tt.log_softmax(output.next_sentence_logits).numpy()[0]
            for t, label in enumerate(labels[real]):
                if label >= 0:
                    nats, hidden, right = (
                        nats - log_p[t, label],
                        hidden + 1,
                        right + (log_p[t].argmax() == label),
                    )
            pair_nats, pair_right = pair_nats - pair[random], pair_right + (pair.argmax() == random)
    expected = {
        "masked_loss": nats / hidden,
        "masked_accuracy": right / hidden,
        "next_sentence_loss": pair_nats / 11,
        "next_sentence_accuracy": pair_right / 11,
    }
    assert task.scores(model) == pytest.approx(expected, rel=1e-9)
    assert task.validation_loss(model) == pytest.approx(nats / hidden + pair_nats / 11, rel=1e-9)


def test_the_baseline_counts_what_is_hidden():
    task = masked()
    hidden = np.concatenate([batch[3][batch[3] >= 0] for batch in task.validation])
    random = np.concatenate([batch[4] for batch in task.validation])
    found = task.baseline()
    p = np.bincount(hidden) / len(hidden)
    assert found["masked_loss"] == pytest.approx(-sum(math.log(p[label]) for label in hidden) / len(hidden))
    assert found["masked_accuracy"] == p.max()
    assert found["next_sentence_accuracy"] == pytest.approx(max(random.mean(), 1 - random.mean()))
    assert without_context([3, 3, 3]) == (0.0, 1.0)


def test_what_masked_language_modelling_cannot_be():
    with pytest.raises(ValueError, match="batch_size and evaluate_pairs must be at least 1"):
        masked(batch_size=0)
    with pytest.raises(ValueError, match="no document has two sentences"):
        MaskedLanguageModelling([[[7, 8]]] * 3, [[[9], [8]]] * 3, TOKENIZER, 2, max_length=17)


# --- span corruption ---


def test_spans_and_what_is_left_are_the_text():
    task = spans()
    text = np.concatenate(task.train_documents).tolist()
    for step in range(30):
        inputs, labels = task.batch(step)
        assert inputs.shape == (5, 29 - 4 + 1 + 1)  # round(0.15 * 29) tokens in one span
        assert labels.shape == (5, 4 + 2 + 1)
        for source, target in zip(inputs.tolist(), labels.tolist(), strict=True):
            assert source.pop() == target.pop() == 60
            at = source.index(61)
            assert (target[0], target[-1]) == (61, 62)
            whole = source[:at] + target[1:-1] + source[at + 1 :]
            assert any(text[i : i + 29] == whole for i in range(len(text) - 28))
        assert task.count(inputs, labels) == labels.size
    assert task.tokens_per_batch == 5 * 29


def test_spans_are_drawn_anew_at_each_step():
    task = spans(context=31)
    places = set()
    for step in range(20):
        inputs, _ = task.batch(step)
        places |= {tuple(row.tolist().index(61) for row in inputs)}
    assert len(places) == 20


def test_scores_of_spans_are_those_of_each_sequence_alone():
    task, model = spans(evaluate_sequences=3), t5()
    sums, numbers = [0.0, 0.0], [0, 0]
    for batch in task.validation:
        for inputs, labels in zip(*batch, strict=True):
            with tt.no_grad():
                log_p = tt.log_softmax(model(inputs[None], labels=labels[None])).numpy()[0]
            for t, label in enumerate(labels):
                for i in range(1 + (label < 60)):
                    sums[i] -= log_p[t, label]
                    numbers[i] += 1
    assert numbers == [3 * 7, 3 * 4]
    expected = {"loss": sums[0] / numbers[0], "span_loss": sums[1] / numbers[1]}
    assert task.scores(model) == pytest.approx(expected, rel=1e-9)
    assert task.validation_loss(model) == pytest.approx(expected["loss"], rel=1e-9)
    labels = np.concatenate([labels.reshape(-1) for _, labels in task.validation])
    wanted = {"loss": without_context(labels)[0], "span_loss": without_context(labels[labels < 60])[0]}
    assert task.baseline() == wanted


def test_validation_sequences_come_from_all_over():
    task = spans(evaluate_sequences=3, context=7)
    whole = np.concatenate(task.validation_documents)
    ((inputs, _),) = task.validation
    assert set(inputs[0]) - set(range(60, 66)) <= set(whole[:7])
    assert set(inputs[-1]) - set(range(60, 66)) <= set(whole[-7:])


def test_what_span_corruption_cannot_be():
    with pytest.raises(ValueError, match="too few for context"):
        spans(context=200)
    with pytest.raises(ValueError, match="sentinels, got 5"):
        spans(context=150)


# --- language modelling ---


@pytest.mark.parametrize("number", [0, 1, 3.0])
def test_too_few_tokens_to_evaluate_on_are_refused(number):
    with pytest.raises(ValueError, match="evaluate_tokens must be an integer of at least 2"):
        LanguageModelling(np.arange(50), np.arange(50), 2, 3, evaluate_tokens=number)
