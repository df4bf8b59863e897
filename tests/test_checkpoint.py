"""Interrupted runs go on, and give what they would have given undisturbed, to the byte."""

from __future__ import annotations

import json
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from filelock import FileLock

import fcpts_onnx
from fcpts_onnx import Progress, Recipe, methods, parity
from fcpts_onnx.cli import main
from fcpts_onnx.errors import Interrupted, OutputError
from tests import networks

KILLED = 10
START = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from fcpts_onnx.cli import main; main()"
)


@pytest.fixture(autouse=True)
def at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long saving takes, a state is kept whenever it is due."""
    monkeypatch.setattr("fcpts_onnx.checkpoint._LEAST_PAUSE", 0)


class CrashError(Exception):
    """What a test throws into a run."""


def prune(place: Path, output: str, **options: Any) -> bytes:
    """The file that a run writes."""
    given = {"target": 0.6, "calib": place / "images", "checkpoint_every": 1e-9, **options}
    fcpts_onnx.prune(place / "in.onnx", place / output, **given)
    return (place / output).read_bytes()


def crash_at(step: int) -> Callable[[Progress], None]:
    def report(progress: Progress) -> None:
        if progress.step >= step:
            raise CrashError

    return report


def crashed(place: Path, output: str, step: int = 4, **options: Any) -> Path:
    """The folder that a run leaves which ends in the middle."""
    with pytest.raises(CrashError):
        prune(place, output, report=crash_at(step), **options)
    assert not (place / output).exists()
    return place / f"{output}.fcpts"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


METHODS: dict[str, dict[str, Any]] = {
    "cost": {},
    "rates": {"allocate": "erk"},
    "score": {"thresholds": "score"},
    "str": {"thresholds": "str"},
    "ltp": {"thresholds": "ltp"},
    "probmask": {"thresholds": "probmask"},
    "momentum": {"optimizer": "sgd", "momentum": 0.9},
    "layer by layer": {"allocate": "erk", "reconstruct": "layerwise"},
    "pattern": {"pattern": "1x4"},
}


@pytest.mark.parametrize("name", METHODS)
def test_it_goes_on_with_every_method(name: str, place: Path) -> None:
    """From the middle of an epoch, before and after the ramp has ended."""
    options = dict(METHODS[name])
    of_recipe = {
        key: options.pop(key) for key in ("thresholds", "optimizer", "momentum") if key in options
    }
    options["recipe"] = Recipe(
        epochs=0, min_steps=18, batch_size=6, interval=2, augment=("flip", "mix"), **of_recipe
    )
    expected = prune(place, "whole.onnx", **options)
    steps = (2,) if "reconstruct" in options else (5, 13)
    for step in steps:
        crashed(place, "out.onnx", step, **options)
        seen: list[Progress] = []
        assert prune(place, "out.onnx", resume=True, report=seen.append, **options) == expected
        assert seen[0].step >= step
        assert not (place / "out.onnx.fcpts").exists()
        (place / "out.onnx").unlink()


def test_it_goes_on_after_it_fell_back(place: Path) -> None:
    """The learning rate it fell back to, and the state it would fall back to, are kept too."""
    recipe = Recipe(epochs=0, min_steps=60, batch_size=4, optimizer="sgd", learning_rate=300.0)
    lines: list[str] = []
    options = {"recipe": recipe, "say": lines.append}
    try:
        expected = prune(place, "whole.onnx", **options)
    except fcpts_onnx.FcptsError as error:
        expected = str(error).encode()
    assert any("going on from step" in line for line in lines)
    fallen = False

    def report(progress: Progress) -> None:
        nonlocal fallen
        fallen = any("going on from step" in line for line in lines)
        if fallen and progress.step >= 4:
            raise CrashError

    lines.clear()
    with pytest.raises(CrashError):
        prune(place, "out.onnx", report=report, **options)
    try:
        found = prune(place, "out.onnx", resume=True, **options)
    except fcpts_onnx.FcptsError as error:
        found = str(error).encode()
    assert found == expected


def test_a_time_budget_counts_what_was_spent(place: Path) -> None:
    options = {
        "target": 0.6, "calib": place / "images", "checkpoint_every": 1e-9,
        "recipe": Recipe(batch_size=4), "time_budget": 10.0,
    }  # fmt: skip

    def crash(progress: Progress) -> None:
        if progress.seconds > 4:
            raise CrashError

    with pytest.raises(CrashError):
        fcpts_onnx.prune(place / "in.onnx", place / "out.onnx", report=crash, **options)
    found = fcpts_onnx.prune(place / "in.onnx", place / "out.onnx", resume=True, **options)
    assert 4 < found.history[-1].seconds < 11  # of both; from anew it would be 13 and more


def test_a_time_budget_counts_what_was_spent_before_learning(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[float] = []

    def recovered(*arguments: Any, seconds: float, **options: Any) -> Any:
        given.append(seconds)
        return methods.recovered(*arguments, seconds=seconds, **options)

    def slow(*arguments: Any) -> Any:
        time.sleep(2)
        return parity.check_parity(*arguments)

    monkeypatch.setattr("fcpts_onnx.pipeline.recovered", recovered)
    options = {"recipe": Recipe(batch_size=4), "time_budget": 6.0}
    with monkeypatch.context() as patch:
        patch.setattr("fcpts_onnx.pipeline.check_parity", slow)
        crashed(place, "out.onnx", **options)
    prune(place, "out.onnx", resume=True, **options)
    first, second = given
    assert second < first + 1  # both spent it, and the first one two seconds more


def test_a_run_whose_time_is_over_is_gone_on_with(place: Path) -> None:
    """To its end, which is one step away."""
    options = {"recipe": Recipe(batch_size=4)}
    crashed(place, "out.onnx", time_budget=20.0, **options)
    seen: list[Progress] = []
    prune(place, "out.onnx", resume=True, time_budget=0.01, report=seen.append, **options)
    assert len(seen) == 1


def test_another_run_is_refused_by_name(place: Path) -> None:
    recipe = Recipe(epochs=0, min_steps=8, batch_size=4)
    crashed(place, "out.onnx", recipe=recipe)

    def refused(**options: Any) -> str:
        with pytest.raises(OutputError, match="is the checkpoint of another run") as caught:
            prune(place, "out.onnx", resume=True, **{"recipe": recipe, **options})
        assert not (place / "out.onnx").exists()
        return str(caught.value)

    assert "options.seed differ" in refused(seed=1)
    assert "options.learned" in refused(exclude=["fc.w"])
    assert "options.learned" in refused(keep_dense=["last"])
    assert "options.allocate" in refused(allocate="erk")
    assert "recipe.min_steps" in refused(recipe=Recipe(epochs=0, min_steps=9, batch_size=4))
    assert "options.target" in refused(target=0.7)
    assert "options.by_time" in refused(time_budget=5.0)
    assert "data" in refused(samples=9)
    networks.save(networks.cnn(opset=16), place / "in.onnx")
    assert "model" in refused()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_state_that_was_read_is_not_held_open(place: Path) -> None:
    """Windows would not let another take its place."""
    options = {"recipe": Recipe(epochs=0, min_steps=8, batch_size=4)}
    crashed(place, "out.onnx", **options)
    held: list[bool] = []

    def report(_: Progress) -> None:
        held.append("state.safetensors" in Path("/proc/self/maps").read_text())

    prune(place, "out.onnx", resume=True, report=report, **options)
    assert held
    assert not any(held)


def test_other_memory_is_no_other_run(place: Path) -> None:
    """Who ran out of it may go on with less."""
    options = {"recipe": Recipe(epochs=0, min_steps=8, batch_size=4)}
    crashed(place, "out.onnx", **options)
    lines: list[str] = []
    prune(place, "out.onnx", resume=True, say=lines.append, memory=2**34, **options)
    assert any(line.startswith("Memory: about") for line in lines)


def test_the_same_memory_is_the_same_file(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much the process that goes on takes by then."""
    options = {"recipe": Recipe(epochs=0, min_steps=8, batch_size=4), "memory": 2**34}
    expected = prune(place, "whole.onnx", **options)
    crashed(place, "out.onnx", **options)
    monkeypatch.setattr("fcpts_onnx.memory.taken", lambda _: 2**34)
    assert prune(place, "out.onnx", resume=True, **options) == expected


def test_other_rates_in_the_same_file_are_another_run(place: Path) -> None:
    rates, names = place / "rates.json", ("conv.w", "depthwise.w", "fc.w")
    options = {"recipe": Recipe(epochs=0, min_steps=8, batch_size=4), "allocate": str(rates)}
    rates.write_text(json.dumps(dict.fromkeys(names, 0.6)))
    crashed(place, "out.onnx", **options)
    rates.write_text(json.dumps(dict.fromkeys(names, 0.6) | {"fc.w": 0.1}))
    with pytest.raises(OutputError, match=r"another run: options\.rates\.fc\.w differ"):
        prune(place, "out.onnx", resume=True, **options)
    rates.write_text(json.dumps(dict.fromkeys(names, 0.6)))
    prune(place, "out.onnx", resume=True, **options)


def test_what_was_kept_cannot_be_read(place: Path) -> None:
    folder = crashed(place, "out.onnx", recipe=Recipe(epochs=0, min_steps=8, batch_size=4))
    state = folder / "state.safetensors"
    for content in (b"", state.read_bytes()[:-9], b"\x80\x04K\x01."):
        state.write_bytes(content)
        with pytest.raises(OutputError, match="cannot be read as a checkpoint"):
            prune(place, "out.onnx", resume=True)


def test_nothing_to_go_on_from(place: Path) -> None:
    result = run(
        "prune", place / "in.onnx", place / "out.onnx", "--target", "0.6", "--resume",
        "--calib", place / "images", "--recipe", place / "quick.toml",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "no checkpoint to resume: starting from the beginning" in result.output


def test_a_new_start_says_what_it_leaves(place: Path) -> None:
    recipe = Recipe(epochs=0, min_steps=8, batch_size=4)
    crashed(place, "out.onnx", recipe=recipe)
    lines: list[str] = []
    prune(place, "out.onnx", recipe=recipe, say=lines.append)
    assert any("which --resume would go on with" in line for line in lines)
    assert not (place / "out.onnx.fcpts").exists()


def test_kept_when_all_is_done(place: Path) -> None:
    """The last state, from which nothing is left to be learned."""
    options = {"recipe": Recipe(epochs=0, min_steps=8, batch_size=4), "keep_checkpoint": True}
    expected = prune(place, "out.onnx", checkpoint_every=1e9, **options)
    seen: list[Progress] = []
    assert prune(place, "out.onnx", resume=True, report=seen.append, **options) == expected
    assert not seen
    assert (place / "out.onnx.fcpts").is_dir()


@pytest.mark.parametrize("kept", [True, False])
def test_kept_on_the_command_line(kept: bool, place: Path) -> None:
    result = run(
        "prune", place / "in.onnx", place / "out.onnx", "--target", "0.6", "--calib",
        place / "images", "--recipe", place / "quick.toml", *["--keep-checkpoint"] * kept,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert (place / "out.onnx.fcpts").is_dir() == kept


def test_kept_at_the_end_of_a_time_budget(place: Path) -> None:
    options = {"recipe": Recipe(batch_size=4), "time_budget": 3.0, "keep_checkpoint": True}
    prune(place, "out.onnx", checkpoint_every=1e9, **options)
    seen: list[Progress] = []
    prune(place, "out.onnx", resume=True, report=seen.append, **options)
    assert len(seen) <= 2


def test_a_run_that_keeps_none_leaves_those_of_others(place: Path) -> None:
    recipe = Recipe(epochs=0, min_steps=8, batch_size=4)
    expected = prune(place, "whole.onnx", recipe=recipe)
    folder = crashed(place, "out.onnx", recipe=recipe)
    with pytest.raises(fcpts_onnx.FcptsError):
        prune(place, "out.onnx", target=5, checkpoint_every=None)
    assert (folder / "state.safetensors").exists()
    options = {"recipe": recipe, "resume": True, "checkpoint_every": None}
    assert prune(place, "out.onnx", **options) == expected


@pytest.mark.parametrize("step", [1, 4, 8])
@pytest.mark.parametrize("reconstruct", ["netwise", "layerwise"])
def test_a_signal_at_any_step(step: int, reconstruct: str, place: Path) -> None:
    """The last one included."""
    options = {"recipe": Recipe(epochs=0, min_steps=8, batch_size=4), "allocate": "erk"}
    options |= {"reconstruct": reconstruct, "checkpoint_every": 1e9}
    expected = prune(place, "whole.onnx", **options)
    step = min(step, 3) if reconstruct == "layerwise" else step

    def report(progress: Progress) -> None:
        if progress.step == step:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match="go on with --resume") as caught:
        prune(place, "out.onnx", report=report, **options)
    assert caught.value.signal == signal.SIGTERM
    assert not (place / "out.onnx").exists()
    assert prune(place, "out.onnx", resume=True, **options) == expected


def test_a_signal_while_writing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    recipe = Recipe(epochs=0, min_steps=8, batch_size=4)
    monkeypatch.setattr("fcpts_onnx.pipeline.publish", stop)
    with pytest.raises(Interrupted, match="go on with --resume"):
        prune(place, "out.onnx", recipe=recipe)
    with pytest.raises(Interrupted, match="nothing was written"):
        prune(place, "other.onnx", recipe=recipe, checkpoint_every=1e9)
    assert not (place / "other.onnx.fcpts").exists()


def test_an_interruption_passes_between_processes() -> None:
    stop = pickle.loads(pickle.dumps(Interrupted(15, "go on")))
    assert (stop.signal, str(stop)) == (15, "Interrupted; go on.")


def test_two_runs_on_one_output(place: Path) -> None:
    folder = place / "out.onnx.fcpts"
    folder.mkdir()
    with FileLock(folder / "run.lock"):
        with pytest.raises(OutputError, match="another run is writing it"):
            prune(place, "out.onnx")
        assert folder.is_dir()
    assert not (place / "out.onnx").exists()


def test_a_full_disk_does_not_end_a_run(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fcpts_onnx.checkpoint.save_file", full)
    lines: list[str] = []
    prune(place, "out.onnx", recipe=str(place / "quick.toml"), say=lines.append)
    assert any("no checkpoint could be kept" in line and "No space" in line for line in lines)


def test_what_a_killed_run_left_is_cleared_away(place: Path) -> None:
    stale, other = place / ".out.onnx.a1b2c3d4", place / ".out.onnx.keep"
    for folder in (stale, other):
        folder.mkdir()
        (folder / "out.onnx").write_bytes(b"half")
    prune(place, "out.onnx", recipe=str(place / "quick.toml"))
    assert not stale.exists()
    assert other.exists()


def started(place: Path, output: str, *options: str) -> subprocess.Popen[str]:
    arguments = [
        sys.executable, "-u", "-c", START, "prune", "in.onnx", output, "--target", "0.6",
        "--calib", "images", "--recipe", "long.toml", "--checkpoint-every", "0.05s",
        "--threads", "1", *options,
    ]  # fmt: skip
    return subprocess.Popen(
        arguments, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def learning(process: subprocess.Popen[str]) -> bool:
    """Wait until it learns; whether it does."""
    assert process.stdout is not None
    return any(line.startswith("step ") for line in process.stdout)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal(number: signal.Signals, place: Path) -> None:
    """It saves, ends with the signal's exit code, and goes on from there."""
    (place / "long.toml").write_text("epochs = 0\nmin_steps = 4000\nbatch_size = 4\n")
    process = started(place, "out.onnx", "--checkpoint-every", "1h")
    assert learning(process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (128 + number, "Interrupted; go on with --resume.\n")
    assert not (place / "out.onnx").exists()
    assert [path.name for path in place.glob(".out*")] == []
    assert (place / "out.onnx.fcpts" / "state.safetensors").exists()


def test_killed_ten_times(place: Path) -> None:
    """Ten random moments of one run, each time gone on with."""
    (place / "long.toml").write_text("epochs = 0\nmin_steps = 1500\nbatch_size = 4\n")
    moments, kills = random.Random(0), 0
    while kills < KILLED:
        process = started(place, "out.onnx", "--resume")
        assert learning(process), process.communicate()
        time.sleep(moments.uniform(0, 0.1))
        process.kill()
        process.communicate()
        kills += 1
    process = started(place, "out.onnx", "--resume", "--json", "run.json")
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert json.loads((place / "run.json").read_text())["seconds"]["learn"] > 0
    process = started(place, "whole.onnx")
    process.communicate(timeout=300)
    assert (place / "out.onnx").read_bytes() == (place / "whole.onnx").read_bytes()
    assert [path.name for path in place.glob("*.fcpts")] == []
