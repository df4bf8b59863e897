"""Recipes: the named ones, files, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fcpts_onnx.errors import RecipeError
from fcpts_onnx.recipe import Recipe, recipe_names, recipe_text


def test_named_recipes_load() -> None:
    names = ["best", "default", "fast", "ltp", "paper", "probmask", "str"]
    assert recipe_names() == names
    assert [Recipe.load(name).name for name in recipe_names()] == names


def test_fast_and_best_are_the_default_for_another_time() -> None:
    default = Recipe.load("default")
    times = {"epochs", "min_steps", "name"}
    for name in ("fast", "best"):
        found = vars(Recipe.load(name))
        differ = {key for key, value in found.items() if value != getattr(default, key)}
        assert times <= differ <= times | {"augment"}
    assert Recipe.load("fast").epochs < default.epochs < Recipe.load("best").epochs


def test_the_papers_settings() -> None:
    paper = Recipe.load("paper")
    assert (paper.optimizer, paper.momentum, paper.weight_decay) == ("sgd", 0.9, 3e-4)
    assert paper.learning_rate == pytest.approx(0.04 * paper.batch_size / 256)
    assert (paper.epochs, paper.batch_size, paper.warmup) == (100, 64, 0.01)
    assert (paper.temperature, paper.control_weight) == (4.0, 1.0)
    assert (paper.thresholds, paper.start_rates) == ("score", "erk")
    assert paper.points == 100
    assert set(paper.augment) == {"flip", "crop"}


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('epochs = 3\naugment = ["flip"]\n')
    assert Recipe.load(path) == replace(Recipe(), name="mine", epochs=3, augment=("flip",))


def test_a_file_that_starts_from_a_recipe(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('base = "paper"\nepochs = 3\n')
    assert Recipe.load(path) == replace(Recipe.load("paper"), name="mine", epochs=3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base = 'worst'", "base is 'worst'; expected one of best, default"),
        ("base = 3", "base is 3; expected one of"),
        ("epochs = ", "not valid TOML"),
        ("speed = 3", "unknown speed; known are augment"),
        ("epochs = -1", "epochs is -1; expected 0 to"),
        ("epochs = 'many'", "epochs is 'many'; expected a number"),
        ("optimizer = 'lion'", "optimizer is 'lion'; expected one of adam, sgd"),
        ("augment = ['blur']", "augment has blur"),
        ("augment = 'flip'", "augment is 'flip'; expected a list"),
        ("augment = [3]", "augment has 3"),
        ("batch_size = 2.5", "batch_size is 2.5; expected an integer"),
        ("min_steps = true", "min_steps is True; expected an integer"),
        ("threshold_start = 'x'", "threshold_start is 'x'; expected a number"),
        ("momentum = 1.0", "momentum is 1; expected 0 to"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=message):
        Recipe.load(path)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_a_file_that_windows_wrote(encoding: str, tmp_path: Path) -> None:
    """PowerShell's `recipe show default > mine.toml` writes UTF-16."""
    text = recipe_text("fast").replace("\n", "\r\n")
    (tmp_path / "mine.toml").write_bytes(text.encode(encoding))
    found = Recipe.load(tmp_path / "mine.toml")
    assert found == replace(Recipe.load("fast"), name=found.name)


def test_unknown_recipe() -> None:
    with pytest.raises(
        RecipeError, match="'fastest' is unknown; expected best, default, fast, ltp, paper"
    ):
        Recipe.load("fastest")
    with pytest.raises(RecipeError, match="cannot be read"):
        Recipe.load("nowhere.toml")
