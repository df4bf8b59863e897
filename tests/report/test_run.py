"""The page of a run: whole, without network, and the same from its JSON."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

import fcpts_onnx
from fcpts_onnx import PruneResult
from fcpts_onnx.errors import FcptsError
from fcpts_onnx.report.plots import course
from fcpts_onnx.report.run import page, read_run
from fcpts_onnx.results import Estimate, Progress
from fcpts_onnx.texts import to_json
from tests import networks

ESTIMATE = Estimate("cv22", 0.64, 2000, 4000, 3, 4)
NASTY = '<script>alert("$x_1$")</script>\x1b[2J\u202e'


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> PruneResult:
    """Of a network with a name in it that is markup, and one with dollars."""
    place = tmp_path_factory.mktemp("run")
    proto = networks.cnn()
    names = {"conv.w": NASTY}
    for tensor in proto.graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    for node in proto.graph.node:
        inputs = [names.get(name, name) for name in node.input]
        del node.input[:]
        node.input.extend(inputs)
    networks.save(proto, place / "in.onnx")
    networks.save_images(place / "images", 16)
    (place / "quick.toml").write_text(networks.QUICK)
    return fcpts_onnx.prune(
        place / "in.onnx", place / "out.onnx", target=0.6, calib=place / "images",
        recipe=str(place / "quick.toml"),
    )  # fmt: skip


def test_what_it_says(result: PruneResult) -> None:
    text = page(replace(result, command="fcpts-onnx prune in.onnx out.onnx --target 0.6"))
    for part in (
        "in.onnx, 60.0% zeros",
        "192 of 320 weights; asked for 60%",
        "fcpts-onnx prune in.onnx out.onnx --target 0.6",
        "recipe quick",
        "batch_size = 4",
        "Seed 0.",
        f"{result.validation.outputs[0].agreement:.2%}",
    ):
        assert part in text
    assert text.count("data:image/webp;base64,") == 8
    for sample in result.validation.furthest:
        assert f"<figcaption>{sample.file}, KL {sample.kl:.2f}<br>" in text
    assert text.count("<svg") == 3 + 3  # rates, course, rates over steps; a weight each


@pytest.mark.parametrize("least", [1e-8, 0.3])
def test_losses_beside_their_axis_are_plain_numbers(least: float) -> None:
    """Not what matplotlib writes as mathematics, which the page would show with its marks."""
    history = [Progress(step, 4, least * step, 0.5, 0.0, {}) for step in (1, 2, 3, 4)]
    text = course(history)
    below, beside = (
        [float(mark) for mark in re.findall(r">([\d.e-]+)</text>", part)]
        for part in text.split(">step<")
    )
    assert "$" not in text
    assert below
    assert all(mark.is_integer() for mark in below)  # steps
    assert any(least <= mark <= 4 * least for mark in beside)


def test_it_needs_no_network_and_runs_nothing(result: PruneResult) -> None:
    text = page(result)
    assert not re.search(r'(src|href)="(?!data:|#)|url\((?!#)|@import', text)
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "$x_1$" in text  # not set as mathematics
    assert all(character.isprintable() or character == "\n" for character in text)


def test_one_weight_with_a_name_that_is_long_and_chinese(result: PruneResult) -> None:
    name = "层" * 90
    one = replace(result.validation.weights[0], name=name)
    history = tuple(replace(entry, rates={name: 0.5}) for entry in result.history)
    validation = replace(result.validation, weights=(one,))
    text = page(replace(result, validation=validation, history=history))
    assert f">...{'层' * 28}<" in text
    heights = [float(h) for h in re.findall(r'<image [^>]*height="([\d.]+)"', text)]
    assert len(heights) == 2  # the map and its colours
    assert min(heights) > 5


def test_from_json_it_is_the_same(result: PruneResult, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(to_json(result))
    read = read_run(tmp_path / "run.json")
    assert read == result
    assert page(read) == page(result)


def test_without_learning_and_without_classes(result: PruneResult) -> None:
    outputs = tuple(replace(o, kl=None, agreement=None) for o in result.validation.outputs)
    validation = replace(result.validation, outputs=outputs, furthest=())
    text = page(replace(result, history=(), validation=validation, estimate=ESTIMATE))
    assert "Furthest" not in text
    assert "Learning" not in text
    assert "<b>0.64</b>" in text
    assert "output scores" in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "is no result of this version's prune --json"),
        ('{"source": "a"}', "is no result of this version's prune --json"),
    ],
)
def test_what_is_no_run(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(FcptsError, match=message):
        read_run(tmp_path / "run.json")


def test_other_types_are_refused(result: PruneResult, tmp_path: Path) -> None:
    entries = json.loads(to_json(result))
    entries["validation"]["weights"] = 3
    (tmp_path / "run.json").write_text(json.dumps(entries))
    with pytest.raises(FcptsError, match="is no result"):
        read_run(tmp_path / "run.json")


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_a_browser_shows_it(result: PruneResult, tmp_path: Path) -> None:
    """Every picture is there, nothing spills over a phone's width, and nothing is complained of."""
    probe = (
        "<script>addEventListener('load', () => { document.title = JSON.stringify({"
        "broken: [...document.images].filter(i => !i.naturalWidth).length, "
        "images: document.images.length, "
        "plots: [...document.querySelectorAll('svg')].filter(s => s.clientHeight > 40).length, "
        "asked: performance.getEntriesByType('resource').filter("
        "e => !e.name.startsWith('data:')).length, "
        "wide: document.documentElement.scrollWidth <= innerWidth}) })</script>"
    )
    (tmp_path / "page.html").write_text(page(result).replace("</body>", probe + "</body>"))
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--window-size=500,900",
        "--enable-logging=stderr", "--v=0", f"--user-data-dir={tmp_path / 'profile'}",
        "--dump-dom", (tmp_path / "page.html").as_uri(),
    ]  # fmt: skip
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = json.loads(re.search(r"<title>(.*?)</title>", shown.stdout)[1])
    assert found == {"broken": 0, "images": 8, "plots": 6, "asked": 0, "wide": True}
    assert "CONSOLE" not in shown.stderr
