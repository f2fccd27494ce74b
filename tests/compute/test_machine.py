"""What runs is what was planned, by ranks that hold its folder, on machines as they are."""

import contextlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
from textwrap import indent

import pytest
import torch

from workbench.compute.here import Ranks, TrainingFailedError, run_here
from workbench.compute.jobs import run_folder
from workbench.compute.runs import Run, only_writer
from workbench.compute.training import plan_training, train
from workbench.data.loading import naming_shared_memory
from workbench.recon.reconstruction_plan import plan_reconstruction, reconstruct
from workbench.settings import (
    AZURE_LOGIN,
    CONNECTION_VARIABLE,
    LINKS_VARIABLE,
    child_environment,
)
from workbench.stores.disk import CannotWriteError

TINY = {"cascades": 1, "chans": 2, "pools": 1, "sens_chans": 2, "sens_pools": 1, "epochs": 1}


def plan(study, **choices):
    return plan_training(
        model="brain", target="local", local_dataset=str(study), **{**TINY, **choices}
    )


@pytest.fixture
def module(project, monkeypatch):
    """Gives a module whose ``main`` ranks run: ``module(text)``."""

    def make(text):
        (project / "ranked.py").write_text("def main():\n" + indent(text.strip(), "    "))
        monkeypatch.setenv("PYTHONPATH", str(project))
        run = Run(run_folder("r"))
        run.folder.mkdir(parents=True)
        return run

    return make


def begin(planned):
    """Leave what a training leaves that has begun."""
    planned.run.last.parent.mkdir()
    planned.run.last.touch()


@pytest.fixture(scope="module")
def trained_once(tiny_study, tmp_path_factory):
    """The plan of a run that was trained without home or temporary folder, and the run's folder.

    Another run had been planned in the same folder before it began.
    """
    root = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_ROOT", str(root))
        first = plan(tiny_study, lr=1e-3, schedule="step", seed=7, workers=0)
        plan(tiny_study, lr=1e-5, seed=8, epochs=3)
        patch.setenv("TMPDIR", str(root / "nowhere"))
        patch.delenv("HOME")
        list(train(first))
    return first, root / "outputs/brain"


@pytest.fixture
def trained(trained_once, project):
    """That run, in a project of the test's own."""
    shutil.copytree(trained_once[1], run_folder("brain"))
    return Run(run_folder("brain"))


def test_the_job_that_was_planned_runs_without_home_or_temporary_folder(trained, trained_once):
    assert trained.job == trained_once[0].job
    assert trained.finished
    assert [row["lr"] for row in trained.metrics] == [1e-3]
    checkpoints = sorted(trained.last.parent.iterdir())
    assert [path.name for path in checkpoints] == ["best.ckpt", "last.ckpt"]


def test_a_plan_is_refused_where_something_else_has_run_since(tiny_study, project, tmp_path):
    first = plan(tiny_study, lr=1e-3)
    begin(plan(tiny_study, lr=1e-5))
    with pytest.raises(ValueError, match=r"a run of another job \(lr 0\.001|lr 1e-05 there"):
        list(train(first))
    assert first.run.job.lr == 1e-5
    first, second = (plan(tiny_study, name="same", resume=False) for _ in range(2))
    begin(second)
    with pytest.raises(ValueError, match="holds a run already"):
        list(train(first))
    other = tmp_path / "other"
    shutil.copytree(tiny_study, other, ignore=shutil.ignore_patterns("*.json"))
    (other / "multicoil_val/file3.h5").unlink()
    first = plan(tiny_study, name="volumes")
    begin(plan(other, name="volumes"))
    with pytest.raises(ValueError, match="has trained on other volumes"):
        list(train(first))


def test_a_run_that_was_sent_to_a_cluster_is_not_trained_here_too(tiny_study, project):
    first = plan(tiny_study)
    for record in ({"run": "x", "fetched": False}, {"run": 1}):
        (first.run.folder / "azureml.json").write_text(json.dumps(record))
        for start in (lambda: plan(tiny_study), lambda: list(train(first))):
            with pytest.raises(ValueError, match="was sent to AzureML, and its end was not seen"):
                start()


def test_a_damaged_file_of_a_run_is_named_with_the_way_out(tiny_study, project):
    first = plan(tiny_study)
    for name in ("azureml.json", "job.json"):
        file = first.run.folder / name
        match = rf"outputs/brain/{name} is damaged, .*: give another name, or remove outputs/brain"
        for text in ("[" * 100_000, "[]", "{", "", "\x00", "NaN", '{"run": "'):
            file.write_text(text)
            with pytest.raises(ValueError, match=match):
                plan(tiny_study)
        file.unlink()


def test_a_job_of_wrong_types_is_named(tiny_study, project):
    first = plan(tiny_study)
    file = first.run.folder / "job.json"
    whole = json.loads(file.read_text())
    for field, value in (
        ("name", ["brain"]), ("model", 5), ("dataset", {}), ("sampling", []), ("sampling", None),
        ("sampling", {"accelerations": "4"}), ("sampling", {"mask": {}}), ("epochs", "50"),
        ("epochs", 1e300), ("lr", []), ("lr", "1e-3"), ("compile", {}), ("low_memory", 3),
        ("workers", True), ("seed", -1), ("precision", 32), ("images", None),
    ):  # fmt: skip
        file.write_text(json.dumps(whole | {field: value}))
        with pytest.raises(ValueError, match=r"outputs/brain/job\.json is damaged"):
            _ = first.run.job


SECRETS = {
    LINKS_VARIABLE: "curl https://signed",
    CONNECTION_VARIABLE: "AccountName=a;AccountKey=k",
    "AZURE_CLIENT_SECRET": "s",
    "AZURE_CLIENT_ID": "i",
    "AZURE_STORAGE_KEY": "k",
    "HIML_SERVICE_PRINCIPAL_PASSWORD": "p",
    "APPLICATION_KEY": "a",
    "AZUREML_RUN_TOKEN": "t",
    "MSI_SECRET": "m",
    "IDENTITY_HEADER": "h",
}


@pytest.fixture
def secrets(monkeypatch):
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    return SECRETS


def test_a_child_gets_no_secret_but_what_it_needs(secrets):
    def held(*needs):
        return secrets.keys() & child_environment(*needs).keys()

    assert held() == set()
    assert held(LINKS_VARIABLE) == {LINKS_VARIABLE}
    assert held(CONNECTION_VARIABLE) == {CONNECTION_VARIABLE}
    assert held(AZURE_LOGIN) == secrets.keys() - {
        LINKS_VARIABLE, CONNECTION_VARIABLE, "AZURE_STORAGE_KEY",
    }  # fmt: skip
    assert child_environment()["PATH"] == os.environ["PATH"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each rank is started afresh")
def test_ranks_are_forked_get_only_the_secrets_they_need_and_tell_their_own_error(
    module, project, secrets
):
    run, lines = module("import os; print('has', *sorted(os.environ)); raise KeyError('lost')"), []
    (project / "ranked.py").write_text((project / "ranked.py").read_text() + "\nprint('imported')")
    with pytest.raises(TrainingFailedError, match=r"rank \d: KeyError: 'lost'"):
        lines.extend(run_here(run, "ranked", Ranks(2, "CPU", 1), needs=(CONNECTION_VARIABLE,)))
    assert lines.count("imported") == 1
    told = [set(line.split()) for line in lines if line.startswith("has")]
    assert [secrets.keys() & has for has in told] == [{CONNECTION_VARIABLE}] * len(told)
    assert all("WORKBENCH_ROOT" in has for has in told)
    assert told
    assert "KeyError: 'lost'" in lines  # and its traceback


def test_ranks_are_started_afresh_where_cuda_would_not_survive_a_fork(module, project):
    run = module("print('here')")
    (project / "ranked.py").write_text((project / "ranked.py").read_text() + "\nprint('imported')")
    lines = list(run_here(run, "ranked", Ranks(2, "GPU", 1)))
    assert (lines.count("imported"), lines.count("here")) == (2, 2)


LAUNCHER = """
import sys
from workbench.compute.here import Ranks, TrainingFailedError, run_here
from workbench.compute.jobs import run_folder
from workbench.compute.runs import Run
for line in run_here(Run(run_folder("r")), "ranked", Ranks(2, "CPU", 1)):
    print(line, flush=True)
"""

STUBBORN = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as a rank in the middle of a long step
print("rank", os.getpid(), flush=True)
time.sleep(600)
"""


def test_ranks_that_outlive_a_killed_launcher_hold_the_run_s_folder(module):
    run = module(STUBBORN)
    command = [sys.executable, "-c", LAUNCHER]
    ranks = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as launcher:
        try:
            while len(ranks) < 2:
                words = launcher.stdout.readline().split()
                ranks += [int(words[1])] if words[:1] == ["rank"] else []
            launcher.kill()
            launcher.wait()
            with (
                pytest.raises(RuntimeError, match="another process is at work in outputs/r"),
                only_writer(run),
            ):
                pass
            with pytest.raises(RuntimeError, match="another process is at work"):
                list(run_here(run, "ranked", Ranks(1, "CPU", 1)))
        finally:
            for rank in ranks:
                os.kill(rank, signal.SIGKILL)
    with only_writer(run, wait=True):
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of a parent's end")
def test_a_rank_ends_with_the_process_that_started_it_even_where_it_takes_no_signal(tmp_path):
    """As within a training, whose SIGTERM waits for the other ranks."""
    rank = (
        "import signal, time; from workbench.compute.processes import begin_rank; begin_rank(); "
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); print('begun', flush=True); time.sleep(600)"
    )
    starter = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {rank!r}])"
    end, start = os.pipe()
    with subprocess.Popen([sys.executable, "-c", starter], stdout=start) as process:
        os.close(start)
        with os.fdopen(end, "rb", buffering=0) as lines:
            assert lines.readline() == b"begun\n"
            process.kill()
            ended, *_ = select.select([lines], [], [], 60)  # nobody is left who could write
            assert ended, "the rank lives on"


@pytest.mark.skipif(sys.platform != "linux", reason="pipes of whole packets are Linux's")
def test_a_rank_s_line_goes_out_whole():
    """In pieces it would run into another rank's line, in the pipe that they share."""
    code = (
        "from workbench.compute.processes import begin_rank; begin_rank(); print('a', 1); print(2)"
    )
    end, start = os.pipe2(os.O_DIRECT)  # a read returns what one write wrote
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    try:
        subprocess.run([sys.executable, "-c", code], stdout=start, env=environment, check=True)
        assert [os.read(end, 100), os.read(end, 100)] == [b"a 1\n", b"2\n"]
    finally:
        os.close(start)
        os.close(end)


def test_ranks_meet_on_a_machine_whose_name_does_not_resolve(module):
    run = module(
        "import os; import torch.distributed as d; d.init_process_group('gloo'); "
        "d.barrier(); os.write(1, b'met %d\\n' % d.get_world_size()); d.destroy_process_group()"
    )
    namespace = ["unshare", "--uts"] if os.geteuid() == 0 else ["unshare", "-r", "--uts"]
    script = 'hostname no-such-host.invalid && exec "$@"'
    command = [*namespace, "sh", "-c", script, "sh", sys.executable, "-c", LAUNCHER]
    if subprocess.run([*namespace, "true"], check=False, capture_output=True).returncode:
        pytest.skip("a host name of its own needs user namespaces, which this machine forbids")
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.count("met 2") == 2, done.stderr
    assert run.folder.exists()


@pytest.mark.parametrize("full", [False, True])
def test_a_disk_without_room_for_a_training_is_named_in_one_line(
    tiny_study, project, small_disk, full
):
    small = small_disk("1m", project / "outputs")
    planned = plan(tiny_study, **({} if full else {"chans": 16, "cascades": 2, "pools": 3}))
    if full:  # from the start, so that not even the error finds room
        with (small / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
            while True:
                filler.write(bytes(4096))
    with pytest.raises((TrainingFailedError, OSError)) as info:
        list(train(planned))
    assert "\n" not in str(info.value)
    assert "outputs/brain" in str(info.value)
    assert "No space left on device: free some space and run again" in str(info.value)


SMALL_SHARED_MEMORY = """
import sys
from workbench.compute.training import plan_training, train
tiny = dict(cascades=1, chans=2, pools=1, sens_chans=2, sens_pools=1, epochs=1)
plan = plan_training(model="brain", target="local", local_dataset=sys.argv[1], workers=4, **tiny)
for line in train(plan):
    print(line, flush=True)
"""


def test_loader_processes_that_would_find_no_room_are_refused_before_the_start(tiny_study, project):
    if os.geteuid() or subprocess.run(["unshare", "--mount", "true"], check=False).returncode:
        pytest.skip("a small /dev/shm is mounted by root alone")
    script = 'mount -t tmpfs -o size=32k none /dev/shm && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable, "-c"]
    done = subprocess.run(
        [*command, SMALL_SHARED_MEMORY, str(tiny_study)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    last = done.stderr.strip().splitlines()[-1]
    assert "rank 0: ValueError: workers=4: the loader processes hold up to 49.2 kB" in last
    assert re.search(r"in /dev/shm, which has [\d.]+ kB free", last)
    assert "workers=0 needs none" in last


@pytest.mark.parametrize(
    "said",
    [
        "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that",
        "Caught RuntimeError in DataLoader worker process 0.\nunable to write to file </torch_1>",
        "Caught OSError in DataLoader worker\n(no room in shared memory, perhaps",
    ],
)
def test_a_loader_process_that_found_no_room_says_so_in_one_line(said):
    match = r"^no room in /dev/shm: enlarge it .* fewer workers"
    with pytest.raises(RuntimeError, match=match), naming_shared_memory():
        raise RuntimeError(said)
    with pytest.raises(RuntimeError, match="another"), naming_shared_memory():
        raise RuntimeError("another")


def test_a_disk_that_fills_up_while_reconstructing_is_named_in_one_line(trained, small_disk):
    asked = plan_reconstruction(run="brain", split="val")
    small_disk("12k", asked.folder)
    with pytest.raises((TrainingFailedError, OSError)) as info:
        list(reconstruct(asked))
    assert "\n" not in str(info.value)
    assert "outputs/brain/reconstructions" in str(info.value)
    assert "No space left on device: free some space" in str(info.value)


def test_weights_that_were_written_anew_since_the_plan_are_not_reconstructed_with(trained):
    asked = plan_reconstruction(run="brain", split="val")
    checkpoint = torch.load(trained.best, weights_only=True)
    torch.save(checkpoint | {"trained on": True}, trained.best)
    with pytest.raises(TrainingFailedError, match=r"best\.ckpt was written anew since this was pl"):
        list(reconstruct(asked))


@pytest.mark.parametrize("name", ["outputs", "outputs/brain"])
def test_a_file_where_the_run_s_folder_should_be_is_named(tiny_study, project, name):
    (project / name).parent.mkdir(exist_ok=True)
    (project / name).write_text("")
    with pytest.raises(CannotWriteError, match=r"^\[Errno \d+\] outputs/brain cannot be written"):
        plan(tiny_study)
