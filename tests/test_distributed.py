"""Several processes that train one model: through ``mpiexec``, as a user starts them."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import fake_cupy
import numpy as np
import pytest
from safetensors.numpy import load_file

import tinytransformer as tt
from tinytransformer.backend import BackendError
from tinytransformer.models import GPT, GPTConfig
from tinytransformer.tasks import LanguageModelling
from tinytransformer.text import ByteTokenizer
from tinytransformer.training import (
    CheckpointError,
    Communicator,
    Trainer,
    TrainingSettings,
    communicator,
    load_checkpoint,
)
from tinytransformer.training.distributed import MPICommunicator, cores_for_each, processes

MPIEXEC = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
needs_mpi = pytest.mark.skipif(
    importlib.util.find_spec("mpi4py") is None or MPIEXEC is None,
    reason="mpi4py or mpiexec is not installed: pip install 'tinytransformer[mpi]'",
)
MODEL = ["--layers", "1", "--heads", "2", "--d-model", "12", "--context", "11", "--batch-size", "3"]
MODEL += ["--tokenizer", "byte", "--threads", "1"]
TEXT = "the cat sat on the mat, and the dog on the log; " * 40


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(TEXT, encoding="utf-8")
    return tmp_path


def job(size, *program):
    """Run a program on so many processes; return what they said."""
    path = str(Path(tt.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    start = [MPIEXEC, "-n", str(size), sys.executable] if size else [sys.executable]
    return subprocess.run(
        [*start, *program], env=environment, capture_output=True, text=True, timeout=120, encoding="utf-8"
    )


def train(size, *options, fails=False):
    """Train on so many processes; 0 stands for one without mpiexec."""
    module = ["-m", "mpi4py", "-m", "tinytransformer"] if size else ["-m", "tinytransformer"]
    done = job(size, *module, "train", *map(str, options))
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done


def begin(size, folder, steps, *options):
    return train(size, "--text", "text.txt", "--out", folder, "--steps", steps, *MODEL, *options)


def weights(folder, step):
    return load_file(f"{folder}/checkpoints/step-{step:08d}/model.safetensors")


def state(folder, step):
    found = next(Path(f"{folder}/checkpoints/step-{step:08d}").glob("*.json"))
    return json.loads(found.read_text(encoding="utf-8"))


@needs_mpi
def test_two_processes_are_one_with_twice_the_batch(here):
    said = begin(2, "two", 7)
    begin(0, "one", 7, "--accumulate", 2)
    for name, array in weights("one", 7).items():
        np.testing.assert_allclose(weights("two", 7)[name], array, rtol=0, atol=2e-5, err_msg=name)
    rows, expected = (
        [json.loads(line) for line in Path(f, "log.jsonl").read_text().splitlines()] for f in ("two", "one")
    )
    assert [row["step"] for row in rows] == list(range(1, 8))  # process 0 alone has written
    assert [row["tokens"] for row in rows] == [row["tokens"] for row in expected]
    for key in ("loss", "gradient_norm"):  # AdamW's steps do not tell the size of a gradient
        np.testing.assert_allclose([r[key] for r in rows], [r[key] for r in expected], rtol=1e-4, err_msg=key)
    assert said.stdout.count("trained  7 steps") == 1
    assert "mpiexec -n 2 python -m mpi4py -m tinytransformer train --resume two" in said.stdout


@needs_mpi
def test_a_run_that_goes_on_is_one_that_never_stopped(here):
    options = ["--schedule", "constant", "--warmup", 0, "--dropout", 0.3]
    begin(2, "whole", 8, *options)
    begin(2, "parts", 5, *options)
    of_each = [state("parts", 5)["rng"], *state("parts", 5)["other_rngs"]]
    assert len(of_each) == 2
    assert of_each[0] != of_each[1]  # each drops others
    for wrong in (0, 3):
        done = train(wrong, "--resume", "parts", "--steps", 8, fails=True)
        assert "was begun with 2, so go on with: mpiexec -n 2 python -m mpi4py" in " ".join(
            done.stderr.split()
        )
    train(2, "--resume", "parts", "--steps", 8)
    for name, array in weights("whole", 8).items():
        np.testing.assert_array_equal(weights("parts", 8)[name], array, err_msg=name)


@needs_mpi
def test_processes_agree_on_the_steps_of_a_time(here):
    done = train(2, "--text", "text.txt", "--out", "timed", "--seconds", 1, *MODEL)
    assert "trained" in done.stdout
    assert max(int(p.name[5:]) for p in Path("timed/checkpoints").iterdir()) > 1


FAILING = """
import os, sys
from tinytransformer.training import Trainer
step = Trainer.train_step
def failing(self):
    if self.communicator.rank == 1 and self.step == 2:
        {failure}
    return step(self)
Trainer.train_step = failing
from tinytransformer.cli import main
main(sys.argv[1:])
"""


@needs_mpi
@pytest.mark.parametrize(
    ("failure", "message"),
    [
        ("raise OSError(28, 'No space left on device', 'data')", "error: data: No space left on device"),
        ("raise AssertionError('a mistake')", "AssertionError: a mistake"),
        ("os.kill(os.getpid(), 9)", "signal"),
    ],
)
def test_a_process_that_fails_ends_the_job(here, failure, message):
    Path("job.py").write_text(FAILING.format(failure=failure))
    options = ["train", "--text", "text.txt", "--out", "failed", "--steps", "900000", *MODEL]
    done = job(2, "-m", "mpi4py", "job.py", *options)  # it would take an hour
    assert done.returncode != 0
    assert message in done.stdout + done.stderr


@needs_mpi
def test_jobs_that_cannot_be(here):
    done = job(2, "-m", "tinytransformer", "train", "--out", "run")
    assert "several processes are started with: mpiexec -n 2 python -m mpi4py -m" in done.stderr
    done = job(2, "-m", "mpi4py", "-m", "tinytransformer", "generate", "run")
    assert "several processes can share the commands train and pretrain alone" in done.stderr
    assert not Path("run").exists()


@needs_mpi
def test_weights_that_differ_are_found(here):
    Path("job.py").write_text(
        "import numpy, tinytransformer as tt\n"
        "from tinytransformer.training import communicator\n"
        "each = communicator()\n"
        "w = tt.nn.Parameter(numpy.ones(3, 'float32'))\n"
        "each.check_equal([w])\n"
        "print('equal')\n"
        "if each.rank: w.data[1] += 1e-7\n"
        "each.check_equal([w])\n"
    )
    done = job(2, "-m", "mpi4py", "job.py")
    assert done.stdout.count("equal") == 2  # the lines of two processes may mix
    assert done.stderr.count("no longer have the same weights") >= 1
    assert done.returncode != 0


@pytest.mark.parametrize("name", ["PMI_SIZE", "OMPI_COMM_WORLD_SIZE"])
def test_one_process_needs_no_mpi(monkeypatch, name):
    assert type(communicator()) is Communicator
    monkeypatch.setenv(name, "3")
    assert processes() == 3
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    monkeypatch.delitem(sys.modules, "mpi4py")
    with pytest.raises(ValueError, match="mpiexec -n 3 python -m mpi4py"):
        communicator()


@pytest.mark.parametrize("name", ["MPI_LOCALNRANKS", "OMPI_COMM_WORLD_LOCAL_SIZE"])
def test_cores_are_shared_by_the_processes_of_a_machine(monkeypatch, name):
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert cores_for_each() == 7
    for here, each in ((2, 3), (7, 1), (11, 1)):
        monkeypatch.setenv(name, str(here))
        assert cores_for_each() == each
    monkeypatch.setattr(os, "cpu_count", lambda: None)  # where the system does not tell
    assert cores_for_each() == 1


class Recorded:
    """What MPI offers, for one process."""

    rank, size = 0, 2

    def __init__(self, *others):
        self.others = others  # what the other processes give
        self.reduced, self.gathered = [], []

    def allgather(self, value):
        self.gathered.append(value)
        return [value, *self.others]

    def Allreduce(self, _, buffer):
        self.reduced.append(buffer)
        buffer *= 2


@needs_mpi
def test_gradients_are_added_up_in_one_buffer():
    comm = Recorded()
    each = MPICommunicator(comm)
    ps = [tt.nn.Parameter(np.zeros(shape, "float32")) for shape in ((2, 3), (5,), (7,))]
    for p in ps[:2]:
        p.grad = tt.tensor(np.ones(p.shape, "float32"))
    each.add_gradients(ps)
    assert [b.shape for b in comm.reduced] == [(11,)]
    assert [p.grad.numpy().sum() for p in ps[:2]] == [12, 10]
    assert ps[2].grad is None


@needs_mpi
def test_processes_on_a_gpu_are_refused():
    p = tt.nn.Parameter(fake_cupy.asarray(np.ones(3)))
    p.grad = tt.Tensor(fake_cupy.asarray(np.ones(3)))
    with pytest.raises(BackendError, match="several processes train on NumPy only"):
        MPICommunicator(Recorded()).add_gradients([p])


def test_blas_has_the_cores_of_one_process(monkeypatch):
    """Or each process would take all cores of the machine."""
    limits = []
    monkeypatch.setattr(
        "threadpoolctl.threadpool_limits", lambda *args, **kwargs: limits.append((args, kwargs))
    )
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    monkeypatch.setenv("MPI_LOCALNRANKS", "2")
    MPICommunicator(Recorded())
    assert limits == [((3,), {"user_api": "blas"})]


def test_a_difference_in_any_parameter_is_seen():
    comm = Recorded()
    arrays = [np.arange(n, dtype="float32") + 0.5 for n in (2, 3, 5)]
    for changed in (None, 0, 1, 2):
        ps = [tt.nn.Parameter(a + np.float32(1e-6) * (i == changed)) for i, a in enumerate(arrays)]
        MPICommunicator(comm).check_equal(ps)
    assert len(set(comm.gathered)) == 4


@pytest.mark.parametrize("others", [("a",), ("a", "a"), ("a", "b")])
def test_process_0_finds_weights_that_differ_too(others):
    """It must not write a checkpoint before the job ends."""
    with pytest.raises(RuntimeError, match="no longer have the same weights"):
        MPICommunicator(Recorded(*others)).check_equal([tt.nn.Parameter(np.ones(3))])


def member(rank, size=3, folder=None, each=None, **settings):
    """Make the trainer of one process; what needs the others is for the test to give."""
    text = ByteTokenizer().encode(TEXT)
    model = GPT(GPTConfig(256, 7, 6, 1, 3, dropout=0.3), np.random.default_rng(1))
    task = LanguageModelling(text[:900], text[900:], batch_size=2, context=7)
    each = each or Communicator()
    each.rank, each.size = rank, size
    chosen = TrainingSettings(steps=9, warmup=1, **settings)
    return Trainer(model, task, chosen, ByteTokenizer(), folder, communicator=each)


def test_no_two_processes_drop_the_same():
    states = [member(rank).model.rng.bit_generator.state["state"]["state"] for rank in range(4)]
    assert len(set(states)) == 4


def test_the_batches_of_a_step_are_dealt_out_and_each_is_taken_once():
    taken = []
    for rank in range(3):
        trainer = member(rank, accumulate=2)
        trainer.task.batch = partial(taking, trainer, trainer.task.batch, taken)
        trainer.train_step()
        trainer.train_step()
    assert sorted(taken) == [(i // 6, i) for i in range(12)]


def taking(trainer, batch, taken, i):
    taken.append((trainer.step, i))
    return batch(i)


def test_a_batch_weighs_its_targets_among_those_of_all_processes():
    alone, shared = member(0, 1), member(0, 2)
    sums = iter([20])  # the 14 targets of this one, and 6 of the other
    shared.communicator.sum = lambda value: next(sums, value)
    expected, row = alone.train_step(), shared.train_step()
    for key in ("loss", "gradient_norm"):
        assert row[key] == pytest.approx(expected[key] * 14 / 20, rel=1e-5)


def test_no_checkpoint_is_written_when_weights_differ(tmp_path):
    trainer = member(0, 2, tmp_path, MPICommunicator(Recorded("another")))
    with pytest.raises(RuntimeError, match="no longer have the same weights"):
        trainer.save()
    assert list(tmp_path.iterdir()) == []


def test_a_run_of_one_process_goes_on_without_mpiexec(tmp_path):
    member(0, 1, tmp_path).save()
    with pytest.raises(CheckpointError, match=r"begun with 1, so go on with: tinytransformer$"):
        member(0, 2).restore(load_checkpoint(tmp_path, "GPT"))


def test_generators_that_are_no_list_are_refused(tmp_path):
    trainer = member(0, 1, tmp_path)
    trainer.save()
    (file,) = tmp_path.glob("checkpoints/*/checkpoint.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), "other_rngs": 7}))
    with pytest.raises(CheckpointError, match="other_rngs is 7"):
        trainer.restore(load_checkpoint(tmp_path, "GPT"))


def test_only_process_0_writes(tmp_path):
    for rank in (1, 2):
        member(rank, folder=tmp_path).run(progress=False)
    assert list(tmp_path.iterdir()) == []


def test_every_process_waits_until_process_0_has_written():
    trainer = member(1)
    trainer.communicator.broadcast = lambda value: "written" if value is None else value
    assert trainer.save() == "written"


def test_all_stop_when_process_0_was_asked_to_and_go_by_its_clock():
    trainer = member(2)
    trainer.communicator.broadcast = lambda value: (7.5, True) if isinstance(value, tuple) else value
    with pytest.raises(KeyboardInterrupt):
        trainer.run(progress=False)
    assert (trainer.step, trainer.seconds) == (1, 7.5)
