"""Methods side by side, as a table and as a page."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from fcpts_onnx.report.comparison import markdown, page
from fcpts_onnx.results import Comparison, Evaluation, Trial

DENSE = Evaluation("m.onnx", "data", 5000, 10, {"top-1": 0.92, "top-5": 0.99}, ())
BEST = Trial("fcpts", 0.7, 0, "a.onnx", 70, 100, 0.012, 0.981, {"top-1": 0.91, "top-5": 0.99}, 61.2)
OTHER = replace(BEST, method="wanda", scores={"top-1": 0.25, "top-5": 0.6}, kl=3.0, seconds=4.0)
FAILED = Trial("str", 0.7, 0, error="no <layer> | at all\nreally")
MISSED = replace(OTHER, method="ltp", zeros=55)
FOUND = Comparison(
    "dir/m.onnx", DENSE, (FAILED, OTHER, MISSED, BEST, replace(BEST, target=0.9, zeros=90))
)


class Tags(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_markdown() -> None:
    lines = markdown(FOUND).splitlines()
    assert lines[0] == "# m.onnx"
    assert lines[2] == "Dense: top-1 92.00%, top-5 99.00% on 5,000 images."
    assert (
        lines[4]
        == "| zeros | method | top-1 | top-5 | KL on calib | same top-1 on calib | seconds | note |"
    )
    assert lines[6] == "| 70% | fcpts | 91.00% | 99.00% | 0.012 | 98.10% | 61 |  |"
    assert lines[8].endswith("| cannot hold a target: 55.00% zeros |")
    assert lines[9] == "| 70% | str |  |  |  |  | 0 | no <layer> / at all really |"


def test_which_weights_were_pruned() -> None:
    some = replace(FOUND, selection="--exclude '<last>'")
    assert markdown(some).splitlines()[4].startswith("Pruned with `--exclude '<last>'`: shares of")
    assert "Pruned with --exclude '<last>': shares of zeros are of those." in Tags(page(some)).text
    assert "Pruned with" not in markdown(FOUND) + page(FOUND)


def test_page_is_whole_and_needs_no_network() -> None:
    text = page(FOUND)
    found = Tags(text)
    assert not re.search(r'(src|href)="(?!#)|@import', text)
    assert found.text.count("cannot hold a target: 55.00% zeros") == 1
    assert "no <layer> | at all" in found.text  # escaped in the source
    assert "<layer>" not in text
    rows = [tag for tag, _ in found.tags if tag == "tr"]
    assert len(rows) == 1 + len(FOUND.trials)


def test_chart() -> None:
    """A line a method that came to something, and one for the dense model."""
    tags = Tags(page(FOUND))
    assert [attributes["aria-label"] for tag, attributes in tags.tags if tag == "svg"] == [
        "top-1 over the share of zeros, a line a method"
    ]
    chart = page(FOUND).partition("<table")[0]
    for name in ("dense", "wanda", "ltp", "fcpts", "share of zeros", "top-1", "70%", "90%"):
        assert f">{name}<" in chart
    assert ">str<" not in chart


def test_a_column_of_notes_only_where_there_are_any() -> None:
    found = Comparison("m.onnx", DENSE, (BEST,))
    assert markdown(found).splitlines()[4].endswith("| seconds |")
    assert ">note<" not in page(found)


@pytest.mark.parametrize("trials", [(), (FAILED,)])
def test_nothing_to_draw(trials: tuple[Trial, ...]) -> None:
    for dense in (DENSE, None):
        assert "<svg" not in page(Comparison("m.onnx", dense, trials))


def test_all_at_nothing() -> None:
    """As where the meaning of a detector's outputs is wrong."""
    dense = replace(DENSE, scores={"mAP50": 0.0})
    text = page(Comparison("m.onnx", dense, (replace(BEST, scores={"mAP50": 0.0}),)))
    assert text.count("<svg") == 1
