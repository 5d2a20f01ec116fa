"""Checkpoints: what is saved comes back; what is damaged is refused, and nothing in it is executed."""

import contextlib
import copy
import dataclasses
import json
import os
import struct
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytransformer import models
from tinytransformer.models import GPT, GPTConfig
from tinytransformer.tasks import LanguageModelling
from tinytransformer.text import ByteTokenizer, CharacterTokenizer
from tinytransformer.training import (
    CheckpointError,
    Trainer,
    TrainingSettings,
    latest_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from tinytransformer.training.checkpoint import ARCHITECTURES

TEXT = "注意力 is all you need; to be or not to be, that is the question. " * 11
SIZES = {"context_length": 7, "d_model": 6, "num_layers": 2, "num_heads": 3, "d_ff": 11}


def small_trainer(
    folder=None,
    dtype="float32",
    tokenizer=None,
    log_name="log.jsonl",
    model=SIZES,
    batch_size=5,
    evaluate_tokens=8192,
    **changed,
):
    """A Trainer of sizes that are pairwise different, on 600 tokens; dropout makes the generator matter."""
    tokenizer = tokenizer or CharacterTokenizer.train(TEXT)
    config = GPTConfig(tokenizer.vocab_size, **{"dropout": 0.2, **model})
    tokens = tokenizer.encode(TEXT)
    values = {
        "steps": 13,
        "warmup": 3,
        "checkpoint_every": 4,
        "evaluate_every": 6,
        **changed,
    }
    return Trainer(
        GPT(config, np.random.default_rng(0), dtype=dtype),
        LanguageModelling(tokens[:600], tokens[600:], batch_size, config.context_length, 0, evaluate_tokens),
        TrainingSettings(**values),
        tokenizer,
        folder,
        {"text": "test", "fingerprint": "test", "validation_fraction": 0.1},
        log_name,
    )


def state_of(trainer):
    """All that decides how a run goes on, in one dict that can be compared."""
    arrays = {**trainer.model.state_dict(), **trainer.optimizer.state_dict()}
    return {
        **{name: (str(a.dtype), a.shape, np.asarray(a).tobytes()) for name, a in arrays.items()},
        "step": trainer.step,
        "rng": trainer.model.rng.bit_generator.state,
    }


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A run of 13 steps with checkpoints of steps 12 and 13; tests copy it before they damage it."""
    folder = tmp_path_factory.mktemp("saved")
    small_trainer(folder).run(progress=False)
    return folder


@pytest.fixture
def damaged(saved, tmp_path):
    """A checkpoint to be damaged."""
    return copied(load_checkpoint(saved).path, tmp_path / "step-00000013")


def copied(checkpoint, to):
    to.mkdir(exist_ok=True)
    for file in checkpoint.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


def use(folder):
    """Do with a checkpoint all that a resumed run does with it."""
    checkpoint = load_checkpoint(folder, "GPT")
    trainer = small_trainer()
    trainer.restore(checkpoint)
    return trainer


# --- saved and loaded ---


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("model", [SIZES, {**SIZES, "positions": "sinusoidal", "tied_head": False}])
def test_all_that_was_saved_comes_back(tmp_path, dtype, model):
    trainer = small_trainer(tmp_path, dtype, model=model)
    for _ in range(3):
        trainer.train_step()
    trainer.seconds = 1.5
    path = trainer.save()
    checkpoint = load_checkpoint(tmp_path)
    assert checkpoint.path == path == tmp_path / "checkpoints" / "step-00000003"
    assert checkpoint.model.config == trainer.model.config
    assert checkpoint.tokenizer == trainer.tokenizer
    assert checkpoint.state["data"] == trainer.data
    assert checkpoint.state["settings"] == dataclasses.asdict(trainer.settings)
    again = small_trainer(None, dtype, model=model)
    again.restore(checkpoint)
    assert state_of(again) == state_of(trainer)
    assert again.seconds == 1.5


def test_the_newest_checkpoint_is_found_from_every_folder_around_it(saved):
    newest = saved / "checkpoints" / "step-00000013"
    for path in (saved, saved / "checkpoints", newest, str(newest)):
        assert latest_checkpoint(path) == newest
    other = saved / "checkpoints" / "step-00000012"
    assert load_checkpoint(other).state["step"] == 12


def test_newest_is_by_number_not_by_name(tmp_path):
    trainer = small_trainer(tmp_path)
    for step in (99_999_999, 100_000_000, 100_000_001):
        trainer.step = step
        trainer.save()
        assert load_checkpoint(tmp_path).state["step"] == step
    names = {p.name for p in (tmp_path / "checkpoints").iterdir()}
    assert names == {"step-100000000", "step-100000001"}


def test_a_folder_that_holds_no_description_is_no_checkpoint(tmp_path):
    path = small_trainer(tmp_path).save()
    (tmp_path / "checkpoints" / "step-00000099").mkdir()
    assert latest_checkpoint(tmp_path) == path


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_keep(tmp_path, keep):
    trainer = small_trainer()
    (tmp_path / "step-00000001").mkdir()  # left by a kill while it was removed
    (tmp_path / "step-by-step").mkdir()  # not ours
    for step in (3, 5, 7, 11):
        save_checkpoint(tmp_path, step, trainer.model, trainer.tokenizer, {}, {}, keep=keep)
    names = [f"step-{step:08d}" for step in (3, 5, 7, 11)[-keep:]]
    assert sorted(p.name for p in tmp_path.iterdir()) == [*names, "step-by-step"]


def test_numbers_of_an_optimizer_come_back(tmp_path):
    trainer = small_trainer()
    state = {"steps": 3, "lr": 0.5, "moment": np.arange(6.0).reshape(2, 3).T}  # not contiguous
    save_checkpoint(tmp_path, 3, trainer.model, trainer.tokenizer, state, {})
    found = load_checkpoint(tmp_path).optimizer_state()
    assert {name: array.tolist() for name, array in found.items()} == {
        "steps": 3,
        "lr": 0.5,
        "moment": [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]],
    }


def test_whoever_may_read_one_file_may_read_all(tmp_path):
    path = small_trainer(tmp_path).save()
    assert len({file.stat().st_mode for file in path.iterdir()}) == 1


def test_keep_of_none_is_refused(tmp_path):
    trainer = small_trainer()
    with pytest.raises(ValueError, match="keep must be at least 1, not 0"):
        save_checkpoint(tmp_path / "new", 3, trainer.model, trainer.tokenizer, {}, {}, keep=0)
    assert not (tmp_path / "new").exists()


def test_a_checkpoint_is_never_overwritten(tmp_path):
    trainer = small_trainer(tmp_path)
    path = trainer.save()
    before = (path / "model.safetensors").read_bytes()
    trainer.model.norm.weight.data += 1
    with pytest.raises(OSError, match="step-00000000"):
        trainer.save()
    assert (path / "model.safetensors").read_bytes() == before


# --- every model ---

ENCODER = {"max_positions": 7, "d_model": 6, "num_layers": 2, "num_heads": 3, "d_ff": 11}
BERTS = [
    models.BERT,
    models.BERTForMaskedLM,
    models.BERTForNextSentence,
    models.BERTForPretraining,
    models.BERTForQuestionAnswering,
    models.BERTForSequenceClassification,
    models.BERTForTokenClassification,
]
TRANSFORMER = {"d_model": 6, "num_encoder_layers": 2, "num_decoder_layers": 1, "num_heads": 3, "d_ff": 11}
EVERY_MODEL = [
    GPT(GPTConfig.llama(256, d_model=12, num_heads=3, num_kv_heads=1), np.random.default_rng(0)),
    *(model(models.BERTConfig(256, num_labels=5, **ENCODER), np.random.default_rng(0)) for model in BERTS),
    models.BERT(models.BERTConfig(256, **ENCODER), np.random.default_rng(0), pooler=False),
    models.T5(models.T5Config(256, 6, 5, 11, 2, 1, 3, feed_forward="gated-gelu"), np.random.default_rng(0)),
    models.T5(models.T5Config(256, 6, 5, 11, 1, 2, 3, tied_head=False), np.random.default_rng(0)),
    models.Transformer(models.TransformerConfig(256, 256, **TRANSFORMER), np.random.default_rng(0)),
    models.Transformer(
        models.TransformerConfig(256, 256, norm_first=True, shared_embeddings=False, **TRANSFORMER),
        np.random.default_rng(0),
    ),
]


@pytest.fixture(params=EVERY_MODEL, ids=lambda model: type(model).__name__)
def kept(request, tmp_path):
    """A model, and a checkpoint of it."""
    return request.param, save_checkpoint(tmp_path, 7, request.param, ByteTokenizer(), {}, {})


def test_every_model_comes_back(kept):
    model, path = kept
    again = load_checkpoint(path).model
    assert type(again) is type(model)
    assert again.config == model.config
    state = model.state_dict()
    assert again.state_dict().keys() == state.keys()
    for name, array in again.state_dict().items():
        np.testing.assert_array_equal(array, state[name])
    generators = {type(m.rng) for m in again.modules() if hasattr(m, "rng")}
    assert generators == {np.random.Generator}
    assert again.rng.normal() != 0


def test_every_model_has_its_architecture():
    assert {type(model).__name__ for model in EVERY_MODEL} == ARCHITECTURES.keys()
    made = {name for name in models.__all__ if hasattr(getattr(models, name), "parameters")}
    assert made == ARCHITECTURES.keys()


def test_a_model_whose_configuration_means_another_is_refused(kept):
    model, path = kept
    sizes = [f.name for f in dataclasses.fields(model.config) if f.type == "int"]
    sizes = [name for name in sizes if name not in ("num_labels", "max_length", "relative_max_distance")]
    sizes = [name for name in sizes if not name.endswith("token_id")]
    rotary = getattr(model.config, "positions", "") == "rotary"
    for name in sizes:
        if rotary and name == "context_length":
            continue  # no parameter depends on it
        for size in (getattr(model.config, name) * 30 or 30, 6 * 10**9, 6 * 10**30, 6 * 10**400):
            edited(path, lambda s: s["config"].update({name: size}))  # noqa: B023
            tracemalloc.start()
            try:
                refused(path, "ids, the model|its configuration means|does not divide")
                assert tracemalloc.get_traced_memory()[1] < 3e6, name
            finally:
                tracemalloc.stop()
        edited(path, lambda s: s["config"].update({name: getattr(model.config, name)}))  # noqa: B023
    edited(path, lambda s: s["config"].update(colour=3))
    refused(path, "colour")


def test_a_checkpoint_of_one_model_under_the_name_of_another_is_refused(kept):
    model, path = kept
    for name, (_, config_class) in ARCHITECTURES.items():
        alike = config_class is type(model.config)
        if name == type(model).__name__ or {name, type(model).__name__} == {
            "BERTForSequenceClassification",
            "BERTForTokenClassification",
        }:
            continue  # those two have the same weights, up to the pooler
        refused(edited(path, lambda s: s.update(model=name)), "cannot load" if alike else "unexpected")  # noqa: B023


# --- a write that fails at any point ---


class Killed(BaseException):
    pass


class _Countdown:
    """Raise at the n-th operation on files, as a kill there would end the program."""

    left = None

    def event(self, name, _=()):
        if self.left is not None and (name == "open" or name.startswith(("os.", "shutil."))):
            if self.left == 0:
                raise Killed(name)
            self.left -= 1


countdown = _Countdown()
sys.addaudithook(countdown.event)


def test_a_write_that_ends_anywhere_leaves_a_whole_checkpoint(tmp_path, monkeypatch):
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (countdown.event("os.fsync"), fsync(handle)))
    trainer = small_trainer(tmp_path)
    folder = tmp_path / "checkpoints"
    trainer.save()
    good, points = 0, []
    while True:
        trainer.step += 1
        trainer.model.norm.weight.data[...] = trainer.step  # so that each checkpoint can be told
        countdown.left = len(points)
        try:
            trainer.save()
        except Killed as point:
            points.append(str(point))
        else:
            break
        finally:
            countdown.left = None
        checkpoint = load_checkpoint(tmp_path)
        step = checkpoint.state["step"]
        assert step in (good, trainer.step)
        assert (checkpoint.model.norm.weight.numpy() == (step or 1)).all()
        assert len(checkpoint.optimizer_state()) > 1
        good = step
    assert {"open", "os.mkdir", "os.rename", "os.fsync", "os.remove", "os.rmdir"} <= set(points)
    left = sorted(p.name for p in folder.iterdir())
    assert len(left) == 2
    assert left[-1] == f"step-{trainer.step:08d}"


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs Linux, where /proc names an open file")
def test_all_is_on_the_disk_before_it_has_its_name_and_then_the_name_is(tmp_path, monkeypatch):
    happened = []
    fsync, rename = os.fsync, os.rename

    def synced(handle):
        happened.append(os.path.basename(os.readlink(f"/proc/self/fd/{handle}")))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", lambda old, new: (happened.append("rename"), rename(old, new)))
    small_trainer(tmp_path).save()
    files = {"checkpoint.json", "model.safetensors", "optimizer.safetensors"}
    assert set(happened[:3]) == files
    assert happened[3:] == [".partial", "rename", "checkpoints"]


# --- what is damaged, foreign or too new ---


def edited(folder, change):
    """Change what checkpoint.json says."""
    file = folder / "checkpoint.json"
    state = json.loads(file.read_text())
    change(state)
    file.write_text(json.dumps(state))
    return folder


def refused(folder, match, *architectures):
    with pytest.raises(CheckpointError, match=match) as caught:
        load_checkpoint(folder, *architectures).optimizer_state()
    assert "\n" not in str(caught.value)


def test_what_is_no_checkpoint_is_refused(tmp_path):
    refused(tmp_path / "nowhere", "nowhere.*there is no such folder")
    refused(tmp_path, "it holds no checkpoint of tinytransformer")
    file = tmp_path / "file"
    file.write_text("hello")
    refused(file, "it holds no checkpoint")
    refused("x" * 5000, "cannot load a checkpoint")
    refused("a\0b", "cannot load a checkpoint")


@pytest.mark.parametrize("name", ["checkpoint.json", "model.safetensors", "optimizer.safetensors"])
def test_missing_empty_and_truncated_files_are_named(damaged, name):
    file = damaged / name
    whole = file.read_bytes()
    for size in (len(whole) - 1, len(whole) // 2, 9, 1, 0):
        file.write_bytes(whole[:size])
        refused(damaged, f"{name}.*(damaged|does not describe)")
    file.unlink()
    refused(damaged, name if name != "checkpoint.json" else "holds no checkpoint")
    file.mkdir()
    refused(damaged, name if name != "checkpoint.json" else "holds no checkpoint")


def test_a_damaged_file_says_how_to_go_on(damaged):
    (damaged / "model.safetensors").write_bytes(b"x" * 100)
    refused(damaged, "remove its folder to use the one before")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda s: s.update(format="pytorch"), "does not describe a checkpoint of tinytransformer"),
        (lambda s: s.update(version=2), "has version 2 and this tinytransformer reads 1: update it"),
        (lambda s: s.pop("version"), "has version None"),
        (lambda s: s.update(model="LSTM"), "architecture 'LSTM' is none of"),
        (lambda s: s.update(model=["GPT"]), "lacks a valid model"),
        (lambda s: s.update(step=-1), "lacks a valid step"),
        (lambda s: s.update(step="3"), "lacks a valid step"),
        (lambda s: s.update(config=None, tokenizer=3), "lacks a valid config and tokenizer"),
        (lambda s: s["config"].update(vocab_size=3), "the tokenizer has .* ids, the model 3"),
        (lambda s: s.update(tokenizer={"type": "byte"}), "the tokenizer has 256 ids, the model"),
        (lambda s: s["tokenizer"]["characters"].pop(), "the tokenizer has"),
        (lambda s: s["tokenizer"].update(type="magic"), "a tokenizer is"),
        (lambda s: s["config"].update(num_layers=3), "its configuration means"),
        (lambda s: s["config"].update(num_heads=4), "num_heads=4 does not divide d_model=6"),
        (lambda s: s["config"].update(colour=4), "colour"),
        (lambda s: s["config"].pop("vocab_size"), "vocab_size"),
        (lambda s: s["config"].update(tied_head=False), "its configuration means"),
        (lambda s: s["config"].update(positions="sinusoidal"), "its configuration means"),
        (lambda s: s["config"].update(layer_norm_eps="small"), "layer_norm_eps must be in"),
        (lambda s: s["config"].update(dropout="much"), "dropout must be in"),
    ],
)
def test_a_description_that_is_wrong_is_refused(damaged, change, match):
    refused(edited(damaged, change), match)


def test_another_architecture_than_asked_for_is_refused(damaged):
    refused(damaged, "it holds a GPT, and a BERT is needed", "BERT")
    refused(damaged, "it holds a GPT, and a BERT or T5 is needed", "BERT", "T5")
    assert isinstance(load_checkpoint(damaged, "T5", "GPT").model, GPT)


def test_json_that_is_none_is_refused(damaged):
    for content in (
        b"\xff\xfe",
        b"[" * 100_000,
        b"9" * 5000,
        b'{"format": ',
        b"[]",
        b"null",
        b"\xef\xbb\xbf{}",
    ):
        (damaged / "checkpoint.json").write_bytes(content)
        refused(damaged, "checkpoint.json")


@pytest.mark.parametrize("name", ["d_model", "d_ff", "num_layers", "vocab_size", "context_length"])
@pytest.mark.parametrize("size", [5040, 6 * 10**9, 6 * 10**30])
def test_sizes_that_are_too_large_are_refused_before_memory_is_asked_for(damaged, name, size):
    edited(damaged, lambda s: s["config"].update({name: size}))
    tracemalloc.start()
    try:
        refused(damaged, "ids, the model" if name == "vocab_size" else "its configuration means")
        assert tracemalloc.get_traced_memory()[1] < 3e6
    finally:
        tracemalloc.stop()


def with_header(file, change):
    """Change the header of a safetensors file."""
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    change(header)
    encoded = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(encoded)) + encoded + content[8 + length :])


@pytest.mark.parametrize(
    "change",
    [
        lambda h: h["norm.bias"].update(shape=[10**18]),
        lambda h: h["norm.bias"].update(shape=[2**62, 0, 2**62]),
        lambda h: h["norm.bias"].update(shape=[6], data_offsets=[0, 2**60]),
        lambda h: h["norm.bias"].update(dtype="F128"),
        lambda h: h["norm.bias"].update(dtype="I32"),
        lambda h: h["norm.bias"].update(dtype="BF16"),
        lambda h: h.pop("norm.bias"),
        lambda h: h.update({"norm.gain": h.pop("norm.bias")}),
        lambda h: h.clear(),
    ],
)
def test_a_tampered_header_is_refused(damaged, change):
    with_header(damaged / "model.safetensors", change)
    tracemalloc.start()
    try:
        refused(damaged, "cannot load|damaged")
        assert tracemalloc.get_traced_memory()[1] < 3e6
    finally:
        tracemalloc.stop()


def test_weights_of_a_dtype_that_no_model_has_are_refused(damaged):
    from safetensors.numpy import load_file, save_file

    file = damaged / "model.safetensors"
    weights = load_file(file)
    for dtype, match in [("int32", "are int32, not"), ("float16", "are float16, not")]:
        save_file({name: array.astype(dtype) for name, array in weights.items()}, file)
        refused(damaged, match)
    save_file({**weights, "norm.bias": weights["norm.bias"].astype("float64")}, file)
    refused(damaged, "are float32 and float64, not")


# --- fuzz: whatever the files hold, there is a CheckpointError or a checkpoint ---

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, 1, -1, 6, 2**31, 2**63, 2**64, 10**30])
    | st.floats()
    | st.sampled_from(["", "GPT", "byte", "\ud800", "float32", "../../x", "__class__"])
    | st.text(max_size=3),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=3), children, max_size=2)
    ),
    max_leaves=4,
)


def places(value, path=()):
    yield path
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


def put(value, path, new):
    if not path:
        return new
    value = copy.copy(value)
    value[path[0]] = put(value[path[0]], path[1:], new)
    return value


def survives(folder):
    with contextlib.suppress(CheckpointError):
        use(folder)


@pytest.fixture(scope="module")
def fuzzed(saved, tmp_path_factory):
    return copied(load_checkpoint(saved).path, tmp_path_factory.mktemp("fuzzed"))


FILES = st.sampled_from(["checkpoint.json", "model.safetensors", "optimizer.safetensors"])


@settings(max_examples=150)
@given(name=FILES, data=st.data())
def test_any_bytes(saved, fuzzed, name, data):
    file = fuzzed / name
    whole = (load_checkpoint(saved).path / name).read_bytes()
    changed = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        # the beginning of the file, where the header is, is hit as often as all the rest
        at = data.draw(st.integers(0, min(99, len(changed))) | st.integers(0, len(changed)))
        removed = data.draw(st.sampled_from([0, 1, 1, 1, 8, len(changed)]))
        changed[at : at + removed] = data.draw(st.binary(max_size=8))
    try:
        file.write_bytes(bytes(changed))
        survives(fuzzed)
    finally:
        file.write_bytes(whole)


@settings(max_examples=200)
@given(data=st.data())
def test_any_value_in_the_description(fuzzed, data):
    file = fuzzed / "checkpoint.json"
    whole = file.read_bytes()
    state = json.loads(whole)
    path = data.draw(st.sampled_from([p for p in places(state) if p[:2] != ("tokenizer", "characters", 9)]))
    try:
        file.write_text(json.dumps(put(state, path, data.draw(JSON))))
        survives(fuzzed)
    finally:
        file.write_bytes(whole)


@settings(max_examples=100)
@given(name=st.sampled_from(["model.safetensors", "optimizer.safetensors"]), data=st.data())
def test_any_value_in_a_header(fuzzed, name, data):
    file = fuzzed / name
    whole = file.read_bytes()

    def change(header):
        path = data.draw(st.sampled_from([p for p in places(header) if p]))
        header.update(put(header, path, data.draw(JSON)))

    try:
        with_header(file, change)
        survives(fuzzed)
    finally:
        file.write_bytes(whole)


def test_restoring_into_another_model_is_refused(saved):
    other = small_trainer(tokenizer=ByteTokenizer())
    before = state_of(other)
    with pytest.raises(
        CheckpointError, match=r"cannot go on from .*step-00000013.*token_embedding.weight has shape"
    ):
        other.restore(load_checkpoint(saved))
    assert state_of(other) == before


def test_the_example_folder_is_untouched(saved):
    assert sorted(str(p.relative_to(saved)) for p in Path(saved).iterdir()) == [
        "checkpoints",
        "log.jsonl",
    ]
