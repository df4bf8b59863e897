"""Methods side by side: what is run, kept, resumed and said."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import helper

import fcpts_onnx
from fcpts_onnx import FcptsError, Progress, identity, prune, trials
from fcpts_onnx.calibration import load_calibration
from fcpts_onnx.cli import main
from fcpts_onnx.methods import METHODS
from fcpts_onnx.model import load
from fcpts_onnx.preprocess import Preprocess
from fcpts_onnx.results import Trial
from fcpts_onnx.trials import Run, Setting
from tests import networks
from tests.networks import QUICK

NO_TARGET = ("str", "ltp")  # methods that end where they end


def compare(place: Path, *options: str) -> Result:
    return CliRunner().invoke(
        main,
        [
            "compare", str(place / "in.onnx"), "--calib", str(place / "images"),
            "--data", str(place / "labelled"), "--out", str(place / "out"),
            "--recipe", str(place / "quick.toml"), *options,
        ],
    )  # fmt: skip


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_every_method(jobs: str, place: Path) -> None:
    """The contract of a method: a file with just the zeros asked for, and a row."""
    names = METHODS if jobs == "1" else ["fcpts", "wanda", "magnitude"]
    result = compare(place, "--methods", ",".join(names), "--targets", "0.5,0.7", "--jobs", jobs)
    assert result.exit_code == 0, result.output
    stored = json.loads((place / "out" / "results.json").read_text())
    trials = [run["trial"] for run in stored["runs"]]
    assert {(t["method"], t["target"]) for t in trials} == {
        (n, s) for n in names for s in (0.5, 0.7)
    }
    reached: dict[str, set[int]] = {}
    for trial in trials:
        assert trial["error"] is None
        assert trial["count"] == 320
        assert trial["method"] in NO_TARGET or trial["zeros"] == round(trial["target"] * 320)
        reached.setdefault(trial["method"], set()).add(trial["zeros"])
        graph = onnx.load(place / "out" / trial["output"]).graph
        arrays = [onnx.numpy_helper.to_array(t) for t in graph.initializer if t.name[-2:] == ".w"]
        assert sum(int((array == 0).sum()) for array in arrays) == trial["zeros"]
        assert not any(np.signbit(array[array == 0]).any() for array in arrays)
        assert 0 <= trial["scores"]["top-1"] <= 1
    # What cannot hold a target comes to the same zeros whatever it is, and is run once.
    assert all(len(zeros) == (1 if name in NO_TARGET else 2) for name, zeros in reached.items())
    files = {path.name for path in (place / "out").glob("*.onnx")}
    assert len(files) == sum(map(len, reached.values()))
    table = (place / "out" / "results.md").read_text()
    assert all(f"| {name} |" in table for name in names)
    assert "dense: top-1" in result.output


def test_a_method_that_cannot_hold_a_target_says_so(place: Path) -> None:
    (place / "quick.toml").write_text(QUICK + 'base = "str"\nthreshold_start = -2.0\n')
    result = compare(place, "--methods", "str", "--targets", "0.9")
    assert result.exit_code == 0, result.output
    (run,) = json.loads((place / "out" / "results.json").read_text())["runs"]
    reached = run["trial"]["zeros"] / 320
    assert 0.1 < reached < 0.8
    for text in (result.output, (place / "out" / "results.md").read_text()):
        assert f"cannot hold a target: {reached:.2%} zeros" in text


def test_a_file_with_hardly_a_zero_is_replaced_by_the_next_run(place: Path) -> None:
    for steps in "67":
        recipe = QUICK.replace("6", steps) + 'base = "str"\nthreshold_start = -30.0\n'
        (place / "quick.toml").write_text(recipe)
        result = compare(place, "--methods", "str", "--targets", "0.9")
        assert result.exit_code == 0, result.output
        (run,) = json.loads((place / "out" / "results.json").read_text())["runs"]
        assert (run["trial"]["error"], run["trial"]["zeros"]) == (None, 0)


def test_the_model_itself_is_replaced_by_no_run(place: Path) -> None:
    (place / "out").mkdir()
    model = (place / "in.onnx").rename(place / "out" / "lamp-0.5.onnx")
    (place / "in.onnx").symlink_to(model)
    before = model.read_bytes()
    result = compare(place, "--methods", "lamp", "--targets", "0.5")
    assert "is the input itself" in result.output.replace("\n", " ")
    assert model.read_bytes() == before


def test_what_holds_no_target_is_run_once(place: Path) -> None:
    (place / "quick.toml").write_text(QUICK + 'base = "ltp"\n')
    compare(place, "--methods", "ltp", "--targets", "0.7")
    result = compare(place, "--methods", "ltp", "--targets", "0.7,0.9")
    assert f"results.html with this as a page, are in {place / 'out'}" in result.output
    assert "2 runs, 2 of them done before" in result.output
    runs = json.loads((place / "out" / "results.json").read_text())["runs"]
    assert [run["trial"]["target"] for run in runs] == [0.7, 0.9]
    assert {run["trial"]["output"] for run in runs} == {"ltp-0.7.onnx"}
    # Its rate follows the target.
    (place / "quick.toml").write_text(QUICK + 'base = "ltp"\nrate_by_density = true\n')
    result = compare(place, "--methods", "ltp", "--targets", "0.7,0.9")
    assert "2 runs\n" in result.output
    runs = json.loads((place / "out" / "results.json").read_text())["runs"]
    assert {run["trial"]["output"] for run in runs} == {"ltp-0.7.onnx", "ltp-0.9.onnx"}


def test_what_is_known_of_a_file_goes_with_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also that it was what another target comes to, and if the run is stopped before its end."""

    def known() -> dict[tuple[str, float], int]:
        runs = json.loads((place / "out" / "results.json").read_text())["runs"]
        found = {(r["trial"]["method"], r["trial"]["target"]): r for r in runs}
        return {name: run["settings"]["recipe"]["min_steps"] for name, run in found.items()}

    (place / "quick.toml").write_text(QUICK + 'base = "ltp"\n')
    compare(place, "--methods", "ltp,lamp", "--targets", "0.7,0.9")
    (place / "quick.toml").write_text(QUICK.replace("6", "7") + 'base = "ltp"\n')
    compare(place, "--methods", "ltp", "--targets", "0.7")
    lamp = {("lamp", 0.7): known()["lamp", 0.7], ("lamp", 0.9): known()["lamp", 0.9]}
    assert known() == {**lamp, ("ltp", 0.7): 7}
    assert "| 90% | ltp |" not in (place / "out" / "results.md").read_text()

    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(trials, "prune", stopped)
    (place / "quick.toml").write_text(QUICK + 'base = "ltp"\n')
    assert compare(place, "--methods", "ltp", "--targets", "0.7,0.9").exit_code == 130
    assert known() == lamp


def test_cores_are_those_that_may_be_used(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[int] = []

    def noted(setting: Setting, _: Path, run: Run, __: object) -> Trial:
        used.append(setting.threads)
        return Trial(*run.name)

    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 5, 7}, raising=False)
    monkeypatch.setattr(trials, "_timed", noted)
    compare(place, "--methods", "lamp", "--targets", "0.5")
    assert used == [3]


def test_a_target_that_cannot_be_is_not_that_of_others(place: Path) -> None:
    compare(place, "--methods", "magnitude", "--targets", "0.6")
    (place / "out" / "magnitude-0.6.onnx").rename(place / "in.onnx")
    shutil.rmtree(place / "out")
    (place / "quick.toml").write_text(QUICK + 'base = "str"\n')
    result = compare(place, "--methods", "str", "--targets", "0.5,0.7,0.8")
    assert result.exit_code == 0, result.output
    runs = json.loads((place / "out" / "results.json").read_text())["runs"]
    outputs = {run["trial"]["target"]: run["trial"]["output"] for run in runs}
    assert outputs == {0.5: None, 0.7: "str-0.7.onnx", 0.8: "str-0.7.onnx"}


def test_two_comparisons_at_once(place: Path) -> None:
    """The second would write its own results over those of the first."""
    others: list[Result] = []

    def meanwhile(_: str) -> None:
        if not others:
            others.append(compare(place, "--methods", "magnitude", "--targets", "0.5"))

    found = fcpts_onnx.compare(
        place / "in.onnx", methods=["lamp"], targets=[0.5], calib=place / "images",
        data=place / "labelled", out=place / "out", say=meanwhile,
    )  # fmt: skip
    assert others[0].exit_code == 1
    message = f"{place / 'out'}: another comparison is writing there. Wait for that, or name"
    assert message in " ".join(others[0].output.split())
    assert not (place / "out" / "magnitude-0.5.onnx").exists()
    assert [trial.method for trial in found.trials] == ["lamp"]
    result = compare(place, "--methods", "magnitude,lamp", "--targets", "0.5")
    assert "2 runs, 1 of them done before" in result.output


def test_learning_is_told(place: Path) -> None:
    seen: list[int] = []
    fcpts_onnx.compare(
        place / "in.onnx", methods=["magnitude", "fcpts"], targets=[0.5, 0.7],
        calib=place / "images", out=place / "out", recipe=str(place / "quick.toml"),
        report=lambda progress: seen.append(progress.step),
    )  # fmt: skip
    assert seen == [*range(1, 7)] * 2


def killed_if_wanda(setting: Setting, folder: Path, run: Run) -> Trial:
    """In place of a run in a process of its own; the others are under way till that is known."""
    if run.method == "wanda":
        os.kill(os.getpid(), signal.SIGKILL)
    table = folder / "results.md"
    while not (table.exists() and "wanda" in table.read_text()):
        time.sleep(0.05)
    return trials._timed(setting, folder, run)


def test_the_others_go_on_where_a_process_is_killed(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--methods", "magnitude,wanda,lamp", "--targets", "0.5", "--jobs", "2")
    with monkeypatch.context() as patch:
        patch.setattr(trials, "_timed", killed_if_wanda)
        result = compare(place, *options)
    assert result.exit_code == 0, result.output
    assert "wanda at 50%: its process was killed, perhaps for memory" in result.output
    assert "__main__" not in result.output + (place / "out" / "results.md").read_text()
    found = json.loads((place / "out" / "results.json").read_text())["runs"]
    reached = {run["trial"]["method"]: run["trial"]["output"] for run in found}
    assert reached["wanda"] is None
    assert reached["lamp"]
    assert reached["magnitude"]
    result = compare(place, *options)
    assert result.exit_code == 0, result.output
    found = json.loads((place / "out" / "results.json").read_text())["runs"]
    assert all(run["trial"]["output"] for run in found)


def test_a_script_that_is_not_made_to_be_imported(place: Path) -> None:
    """Each process would start the comparison anew; Python ends it, and what to do is said."""
    (place / "script.py").write_text(
        "import fcpts_onnx\n"
        "fcpts_onnx.compare('in.onnx', methods=['magnitude'], targets=[0.5], "
        "calib='images', out='out', jobs=2)\n"
    )
    done = subprocess.run(
        [sys.executable, "script.py"], capture_output=True, text=True, cwd=place,
        env={**os.environ, "PYTHONPATH": str(Path(fcpts_onnx.__file__).parent.parent)},
    )  # fmt: skip
    assert done.returncode == 1
    assert 'below `if __name__ == "__main__":`' in done.stderr.splitlines()[-1]
    assert not (place / "out" / "results.md").exists()


def told_twice(setting: Setting, folder: Path, run: Run) -> Trial:
    """A run in a process of its own that hears of Ctrl-C and is then told to stop."""

    def stopping(progress: Progress) -> None:
        if progress.step == 5:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)

    return trials._timed(setting, folder, run, stopping)


def test_runs_in_processes_keep_their_state_where_they_are_stopped(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "_timed", told_twice)
    result = compare(place, "--methods", "fcpts", "--targets", "0.5", "--jobs", "2")
    assert result.exit_code == 128 + signal.SIGTERM
    assert [path.name for path in (place / "out").glob("*.fcpts")] == ["fcpts-0.5.onnx.fcpts"]


def test_a_broken_image_is_no_broken_folder(place: Path) -> None:
    images, model = place / "images", load(place / "in.onnx")
    drawn = load_calibration(images, model, Preprocess(), samples=1).file(0)
    (images / str(drawn)).write_bytes(b"cut")
    result = compare(place, "--methods", "magnitude", "--targets", "0.5")
    assert result.exit_code == 0, result.output


def test_changed_images_are_other_data(place: Path) -> None:
    options = ("--methods", "magnitude", "--targets", "0.5")
    assert compare(place, *options).exit_code == 0
    next(iter((place / "images").glob("*.png"))).unlink()
    assert "holds results of another comparison: calib differ" in compare(place, *options).output


def fingerprint(model: Path, files: Path, out: Path) -> dict[str, object]:
    setting = Setting(model, files, None, None, 0, files, None, Preprocess(), 1, 1)
    return setting.fingerprint(out)


def test_what_is_no_data_makes_no_other_data(place: Path) -> None:
    """Nor do results that lie in its folder; where it is theirs, images are still data."""
    model, images, out = place / "in.onnx", place / "images", place / "images" / "out"
    before = fingerprint(model, images, out)
    out.mkdir()
    (images / ".fseventsd").mkdir()
    for file in (".DS_Store", "Thumbs.db", "._000.png", ".fseventsd/a.png", "out/x.npy"):
        (images / file).write_text("x")
    assert fingerprint(model, images, out) == before
    assert fingerprint(model, images, place) != before  # out/x.npy
    results = fingerprint(model, images, images)
    (images / "000.png").unlink()
    assert fingerprint(model, images, images) != results


def test_the_data_of_older_results_is_known_again(place: Path) -> None:
    """By what was written of ordinary folders at first."""
    (place / "files" / "b").mkdir(parents=True)
    (place / "files" / "a.txt").write_bytes(b"1 0.5 0.5 0.2 0.1\n")
    (place / "files" / "b" / "c.PNG").write_bytes(b"x")
    found = fingerprint(place / "in.onnx", place / "files", place / "out")
    assert found["boxes"] == "b40eb9f824e188320dbf6f8f8b6aa973a1c0bbbd69c743172c1df57d7dabb6a0"


def test_of_many_files_some_are_read(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And all are known by their names and sizes."""
    opened: list[Path] = []
    known = Path.open

    def noted(self: Path, *options: str) -> object:
        opened.append(self)
        return known(self, *options)

    (place / "files").mkdir()
    for number in range(9):
        (place / "files" / f"{number}.txt").write_text(f"{number}\n")
    monkeypatch.setattr(identity, "_MOST_READ", 3)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", noted)
        before = fingerprint(place / "in.onnx", place / "files", place / "out")["boxes"]
    read = {path.name for path in opened if path.parent.name == "files"}
    assert read == {"0.txt", "3.txt", "6.txt"}
    for name, text in (("3.txt", "x\n"), ("4.txt", "44\n"), ("9.txt", "9\n")):
        (place / "files" / name).write_text(text)
        after = fingerprint(place / "in.onnx", place / "files", place / "out")["boxes"]
        assert after != before
        before = after


@pytest.mark.parametrize("name", ["a.npy", "a.txt"])
def test_what_changed_in_files_of_the_same_size_is_other_data(name: str, place: Path) -> None:
    """As arrays made anew of the same shape, or an annotation whose class changed."""

    def found() -> dict[str, object]:
        return fingerprint(place / "in.onnx", place / "files", place / "out")

    (place / "files").mkdir()
    file = place / "files" / name
    np.save(file, np.zeros(9)) if name == "a.npy" else file.write_text("1 0.5 0.5 0.2 0.1\n")
    before = found()
    assert found() == before
    np.save(file, np.ones(9)) if name == "a.npy" else file.write_text("0 0.5 0.5 0.2 0.1\n")
    assert {key for key, value in found().items() if before[key] != value} == {"calib", "boxes"}


@pytest.mark.parametrize("option", ["--labels", "--boxes"])
def test_a_file_that_is_not_there(option: str, place: Path) -> None:
    more = ("--detector", str(place / "none.toml")) if option == "--boxes" else ()
    given = (option, str(place / "none.txt"), *more, "--methods", "magnitude", "--targets", "0.5")
    result = compare(place, *given)
    assert result.exit_code == 1, result.output
    assert "none.t" in result.output
    assert "cannot be read" in result.output


def test_no_result_at_all_is_no_success(place: Path) -> None:
    result = compare(place, "--methods", "magnitude", "--targets", "0.9999")
    assert result.exit_code == 1
    assert "No method could take the model; the rows say why." in result.output
    assert "magnitude at 99.99%: " in result.output


def test_targets_that_are_nearly_the_same(place: Path) -> None:
    """Each has its file, and is shown with the digits that it has."""
    options = ("--methods", "lamp", "--targets", "0.7,0.7000001")
    result = compare(place, *options)
    assert result.exit_code == 0, result.output
    assert "2 runs, 2 of them done before" in compare(place, *options).output
    files = {path.name for path in (place / "out").glob("*.onnx")}
    assert files == {"lamp-0.7.onnx", "lamp-0.7000001.onnx"}
    assert "70.00001%  lamp" in result.output
    table = (place / "out" / "results.md").read_text()
    assert "| 70% | lamp |" in table
    assert "| 70.00001% | lamp |" in table


def test_a_team_does_not_compare(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = compare(place, "--methods", "magnitude", "--targets", "0.5")
    assert "A comparison is started by one process" in result.output
    assert not (place / "out").exists()


def test_the_dense_model_is_measured_once(place: Path) -> None:
    options = ("--methods", "magnitude", "--targets", "0.5")
    compare(place, *options)
    results = place / "out" / "results.json"
    stored = json.loads(results.read_text())
    assert stored["dense"]["samples"] == 12
    stored["dense"]["scores"]["top-1"] = 0.4567
    results.write_text(json.dumps(stored))
    assert "dense: top-1 45.67%" in compare(place, *options).output


def test_a_recipe_makes_no_other_method_of_one(place: Path) -> None:
    (place / "quick.toml").write_text(QUICK + 'base = "probmask"\n')
    result = compare(place, "--methods", "fcpts-paper,probmask", "--targets", "0.7")
    assert (
        "Recipe 'quick' learns thresholds by 'probmask'; what learns in another way keeps its "
        "own: fcpts-paper (score)"
    ) in result.output
    runs = json.loads((place / "out" / "results.json").read_text())["runs"]
    settings = {run["trial"]["method"]: run["settings"]["recipe"] for run in runs}
    assert settings["probmask"]["min_steps"] == 6
    assert settings["fcpts-paper"]["thresholds"] == "score"
    assert settings["fcpts-paper"]["name"] == "paper"


def test_a_recipe_that_fits_no_method(place: Path) -> None:
    result = compare(place, "--methods", "str,fcpts-paper", "--targets", "0.7")
    assert result.exit_code == 1
    assert (
        "Recipe 'quick': learns thresholds by 'cost', and the methods in other ways: str (str), "
        "fcpts-paper (score). Leave it out, or compare a method that it fits."
    ) in result.output
    assert not (place / "out").exists()


def test_a_recipe_is_not_of_methods_that_learn_nothing(place: Path) -> None:
    """Another one makes no other run of them."""
    options = ("--methods", "lamp,wanda,fcpts", "--targets", "0.5")
    compare(place, *options)
    (place / "quick.toml").write_text(QUICK.replace("6", "7"))
    result = compare(place, *options)
    assert "3 runs, 2 of them done before" in result.output
    table = (place / "out" / "results.md").read_text()
    assert all(f"| 50% | {name} |" in table for name in ("lamp", "wanda", "fcpts"))
    (place / "quick.toml").write_text(QUICK.replace("4", "8"))  # wanda reads batches
    assert "3 runs, 1 of them done before" in compare(place, *options).output


def test_methods_without_thresholds_keep_no_recipe(place: Path) -> None:
    (place / "quick.toml").write_text(QUICK + 'base = "ltp"\n')
    result = compare(place, "--methods", "pot-erk,lamp,ltp", "--targets", "0.5")
    assert result.exit_code == 0, result.output
    assert "keeps its own" not in result.output


def test_recipes_are_told_apart(place: Path) -> None:
    """By name, and those of one name by when they came."""
    (place / "other.toml").write_text(QUICK.replace("6", "8"))
    options = ("--methods", "fcpts,lamp", "--targets")
    compare(place, *options, "0.5")
    compare(place, "--recipe", str(place / "other.toml"), *options, "0.6")
    (place / "quick.toml").write_text(QUICK.replace("6", "7"))
    found = fcpts_onnx.compare(
        place / "in.onnx", methods=["fcpts"], targets=[0.7], calib=place / "images",
        data=place / "labelled", out=place / "out", recipe=str(place / "quick.toml"),
    )  # fmt: skip
    assert [trial.label for trial in found.trials] == ["fcpts, quick (2)"]
    table, page = ((place / "out" / f"results.{kind}").read_text() for kind in ("md", "html"))
    for target, name in ((50, "fcpts, quick"), (60, "fcpts, other"), (70, "fcpts, quick (2)")):
        assert f"| {target}% | {name} |" in table
        assert f'<td class="word">{name}</td>' in page
        assert f">{name}<" in page.partition("<table")[0]  # a line of the chart


@pytest.mark.parametrize(
    "options",
    [("--labels", "names.txt"), ("--boxes", "b", "--detector", "d.toml"), ("--label-offset", "1")],
)
def test_labels_without_images(options: tuple[str, ...], place: Path) -> None:
    result = CliRunner().invoke(
        main,
        [
            "compare", str(place / "in.onnx"), "--calib", str(place / "images"), "--out",
            str(place / "out"), *options,
        ],
    )  # fmt: skip
    assert result.exit_code == 1
    assert "but no images: add --data" in result.output
    assert not (place / "out").exists()


def test_it_goes_on_where_it_was_stopped(place: Path) -> None:
    methods = ("--methods", "magnitude,wanda", "--targets")
    assert "2 runs\n" in compare(place, *methods, "0.5").output
    before = (place / "out" / "wanda-0.5.onnx").stat().st_mtime_ns
    result = compare(place, *methods, "0.5,0.6")
    assert "4 runs, 2 of them done before" in result.output
    assert (place / "out" / "wanda-0.5.onnx").stat().st_mtime_ns == before
    (place / "out" / "wanda-0.5.onnx").unlink()
    assert "4 runs, 3 of them done before" in compare(place, *methods, "0.5,0.6").output
    (place / "quick.toml").write_text(QUICK.replace("4", "8"))  # in batches, which wanda reads
    assert "4 runs, 2 of them done before" in compare(place, *methods, "0.5,0.6").output


def test_a_run_goes_on_where_it_was_stopped(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From its checkpoint with the same settings, from the beginning with others."""
    (place / "quick.toml").write_text("epochs = 0\nmin_steps = 12\nbatch_size = 4\n")
    options = ("--methods", "fcpts", "--targets", "0.5")
    seen: list[int] = []

    def stopping(progress: Progress) -> None:
        seen.append(progress.step)
        if progress.step == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    def interrupted() -> Result:
        with monkeypatch.context() as patch:
            patch.setattr(trials, "prune", lambda *a, **k: prune(*a, **{**k, "report": stopping}))
            return compare(place, *options)

    result = interrupted()
    assert result.exit_code == 128 + signal.SIGTERM
    assert f"Interrupted; the same command goes on with {place / 'out'}." in result.output
    assert seen[-1] == 5
    seen.clear()
    assert interrupted().exit_code == 0
    assert seen == [*range(6, 13)]
    file = place / "out" / "fcpts-0.5.onnx"
    gone_on = file.read_bytes()
    file.unlink()
    assert compare(place, *options).exit_code == 0
    assert file.read_bytes() == gone_on
    assert [path.name for path in (place / "out").glob("*.fcpts")] == []

    file.unlink()
    interrupted()
    (place / "quick.toml").write_text("epochs = 0\nmin_steps = 11\nbatch_size = 4\n")
    assert compare(place, *options).exit_code == 0
    (run,) = json.loads((place / "out" / "results.json").read_text())["runs"]
    assert run["settings"]["recipe"]["min_steps"] == 11


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda stored: stored.update(setting=None), "expected a mapping @ $.setting"),
        (lambda stored: stored.pop("runs"), "required field missing @ $.runs"),
        (lambda stored: stored["dense"].pop("scores"), "required field missing @ $.dense.scores"),
        (
            lambda stored: stored["runs"][0]["trial"].update(device="cpu"),
            "extra fields found (device) @ $.runs[0].trial",
        ),
        (
            lambda stored: stored["runs"][0]["trial"].pop("method"),
            "required field missing @ $.runs[0].trial.method",
        ),
    ],
)
def test_results_that_are_none_of_this_version(
    change: Callable[[dict[str, Any]], object], message: str, place: Path
) -> None:
    options = ("--methods", "lamp", "--targets", "0.5")
    compare(place, *options)
    file = place / "out" / "results.json"
    stored = json.loads(file.read_text())
    change(stored)
    file.write_text(json.dumps(stored))
    result = compare(place, *options)
    assert result.exit_code == 1
    said = " ".join(result.output.split())
    assert f"{file}: cannot be read as results of this version's compare: {message}. Name" in said
    assert "Name another folder with --out, or delete the file" in said


def test_a_file_of_results_with_nothing_in_it(place: Path) -> None:
    (place / "out").mkdir()
    (place / "out" / "results.json").touch()
    result = compare(place, "--methods", "lamp", "--targets", "0.5")
    assert result.exit_code == 0, result.output


def test_results_of_another_model_are_not_mixed_in(place: Path) -> None:
    assert compare(place, "--methods", "magnitude", "--targets", "0.5").exit_code == 0
    networks.save(networks.cnn(opset=16), place / "in.onnx")
    result = compare(place, "--methods", "magnitude", "--targets", "0.5")
    assert result.exit_code == 1
    assert "holds results of another comparison: model differ" in result.output


def test_a_method_that_cannot_take_a_model_is_a_row(place: Path) -> None:
    proto = networks.cnn()
    twice = helper.make_node("Conv", ["r", "depthwise.w"], ["e"], group=8, pads=[1] * 4)
    proto.graph.node.insert(2, twice)
    proto.graph.node.insert(4, helper.make_node("Add", ["d", "e"], ["s"]))
    proto.graph.node[5].input[0] = "s"
    networks.save(proto, place / "in.onnx")
    result = compare(place, "--methods", "wanda,fcpts", "--targets", "0.5")
    assert result.exit_code == 0, result.output
    assert "wanda at 50%: " in result.output
    assert "Layer by layer cannot take depthwise.w" in result.output
    found = json.loads((place / "out" / "results.json").read_text())["runs"]
    assert [bool(run["trial"]["output"]) for run in found] == [False, True]
    again = compare(place, "--methods", "wanda,fcpts", "--targets", "0.5")
    assert "2 runs, 1 of them done before" in again.output  # a failure is tried again


def test_some_weights_are_left_out(place: Path) -> None:
    """By each method, and results without that choice, or with another, are others."""
    options = ("--methods", "magnitude,fcpts", "--targets", "0.5")
    assert compare(place, *options, "--exclude", "fc*").exit_code == 0
    for name in ("magnitude", "fcpts"):
        before, after = (load(place / file) for file in ("in.onnx", f"out/{name}-0.5.onnx"))
        assert np.array_equal(after.array("fc.w"), before.array("fc.w"))
    for kind in ("md", "html"):
        assert "--exclude" in (place / "out" / f"results.{kind}").read_text()
    assert "another comparison: exclude differ" in compare(place, *options).output
    other = compare(place, *options, "--keep-dense", "last").output
    assert "another comparison: keep_dense, exclude differ" in " ".join(other.split())


def test_a_choice_of_weights_that_leaves_none(place: Path) -> None:
    for globs, message in (("nothing*", "matches no weight"), ("*", "has no prunable weight")):
        result = compare(place, "--methods", "lamp", "--targets", "0.5", "--exclude", globs)
        assert result.exit_code == 1
        assert message in " ".join(result.output.split())
    assert not (place / "out").exists()


def test_other_labels_are_other_results(place: Path) -> None:
    options = ("--methods", "magnitude", "--targets", "0.5", "--labels", str(place / "names.txt"))
    (place / "names.txt").write_text("ant\nbee\ncat\ndog\n")
    assert compare(place, *options).exit_code == 0
    (place / "names.txt").write_text("dog\nbee\ncat\nant\n")
    assert "another comparison: labels differ" in compare(place, *options).output


def test_what_cannot_be_read_at_all(place: Path) -> None:
    (place / "in.onnx").unlink()
    result = compare(place, "--methods", "magnitude", "--targets", "0.5")
    assert result.exit_code == 1
    assert "in.onnx" in result.output
    assert not (place / "out").exists()
    networks.save(networks.cnn(), place / "in.onnx")
    for file in (place / "images").iterdir():
        file.unlink()
    result = compare(place, "--methods", "magnitude", "--targets", "0.5")
    assert result.exit_code == 1
    assert "no images" in result.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--methods", "best"), "expected some of fcpts,"),
        (("--methods", ""), "expected some of fcpts,"),
        (("--targets", "lots"), "expected shares with commas"),
        (("--targets", "0.5,1"), "expected shares between 0 and 1"),
    ],
)
def test_wrong_usage(options: tuple[str, ...], message: str, place: Path) -> None:
    result = compare(place, *options)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
    assert not (place / "out").exists()


def test_from_python(place: Path) -> None:
    with pytest.raises(FcptsError, match="Unknown: best; methods are fcpts,"):
        fcpts_onnx.compare(
            place / "in.onnx", methods=["best"], targets=[0.5], calib=place / "images",
            out=place / "out",
        )  # fmt: skip
    found = fcpts_onnx.compare(
        place / "in.onnx", methods=["lamp"], targets=[0.5], calib=place / "images",
        out=place / "out", seeds=(0, 3),
    )  # fmt: skip
    assert found.dense is None
    assert [(trial.seed, trial.scores) for trial in found.trials] == [(0, {}), (3, {})]
    assert (place / "out" / "lamp-0.5-seed3.onnx").is_file()
