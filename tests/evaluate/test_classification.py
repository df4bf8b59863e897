"""Top-1 and top-5 on images in class folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from PIL import Image

from fcpts_onnx.errors import CalibrationError
from fcpts_onnx.evaluate import evaluate_classifier
from fcpts_onnx.model import load
from fcpts_onnx.preprocess import PRESETS
from fcpts_onnx.results import Evaluation
from tests import networks


def brightness_classifier(classes: int) -> onnx.ModelProto:
    """Score of class k is -(mean - 20 k)^2, without the part all classes share."""
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["m"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Reshape", ["m", "column"], ["c"]),
        helper.make_node("Gemm", ["c", "w", "b"], ["scores"]),
    ]
    levels = 20.0 * np.arange(classes, dtype=np.float32)
    constants = {"column": np.array([-1, 1]), "w": 2 * levels[None], "b": -(levels**2)}
    shapes = {"image": ["N", 3, 8, 8]}, {"scores": ["N", classes]}
    return networks.make(nodes, constants, *shapes)


def labelled(folder: Path, names: list[str], levels: list[int]) -> Path:
    for name, level in zip(names, levels, strict=True):
        (folder / name / "deep").mkdir(parents=True)
        for place in ("a.png", "deep/b.png"):
            Image.new("RGB", (8, 8), (level,) * 3).save(folder / name / place)
    return folder


def test_top1_and_top5(tmp_path: Path) -> None:
    model = load(networks.save(brightness_classifier(8), tmp_path / "m.onnx"))
    names = list("abcdefgh")
    # The fourth class looks like the fifth, the eighth like the first.
    data = labelled(tmp_path / "data", names, [0, 20, 40, 80, 80, 100, 120, 0])
    seen: list[tuple[int, int]] = []
    found = evaluate_classifier(
        model, data, PRESETS["raw"], report=lambda done, total: seen.append((done, total))
    )
    assert seen[-1] == (16, 16)
    assert (found.samples, found.classes) == (16, 8)
    assert found.scores["top-1"] == 6 / 8
    assert found.scores["top-5"] == 7 / 8


def test_scores_in_whole_numbers(tmp_path: Path) -> None:
    proto = brightness_classifier(4)
    proto.graph.node[-1].output[0] = "float"
    proto.graph.node.append(
        helper.make_node("QuantizeLinear", ["float", "scale", "point"], ["scores"])
    )
    proto.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.INT8
    for name, value in {"scale": np.float32(40), "point": np.int8(3)}.items():
        proto.graph.initializer.append(numpy_helper.from_array(np.array(value), name))
    model = load(networks.save(proto, tmp_path / "m.onnx"))
    data = labelled(tmp_path / "data", list("abcd"), [0, 20, 40, 0])
    assert evaluate_classifier(model, data, PRESETS["raw"]).scores["top-1"] == 3 / 4


def test_names_of_classes_before_the_scores(tmp_path: Path) -> None:
    """As scikit-learn's converter has them: a text for each image, and only then the scores."""
    proto = brightness_classifier(4)
    proto.graph.node.extend(
        [
            helper.make_node("ArgMax", ["scores"], ["best"], axis=1, keepdims=0),
            helper.make_node(
                "LabelEncoder", ["best"], ["names"], domain="ai.onnx.ml", keys_int64s=range(4),
                values_strings=list("abcd"),
            ),
        ]
    )  # fmt: skip
    proto.opset_import.append(helper.make_opsetid("ai.onnx.ml", 2))
    names = helper.make_tensor_value_info("names", onnx.TensorProto.STRING, ["N"])
    proto.graph.output.insert(0, names)
    data = labelled(tmp_path / "data", list("abcd"), [0, 20, 40, 0])
    model = load(networks.save(proto, tmp_path / "m.onnx"))
    assert evaluate_classifier(model, data, PRESETS["raw"]).scores["top-1"] == 3 / 4
    del proto.graph.output[1]
    model = load(networks.save(proto, tmp_path / "names.onnx"))
    with pytest.raises(CalibrationError, match="gives no numbers"):
        evaluate_classifier(model, data, PRESETS["raw"])


def test_labels_from_a_file(tmp_path: Path) -> None:
    model = load(networks.save(brightness_classifier(4), tmp_path / "m.onnx"))
    data = labelled(tmp_path / "data", ["x", "y"], [60, 20])
    labels = tmp_path / "labels.txt"
    labels.write_text("w\ny\nz\nx\n")
    assert evaluate_classifier(model, data, PRESETS["raw"], labels=labels).scores["top-1"] == 1.0
    labels.write_text("\ny\n\nx\n\n\n")  # places without a name count, lines at the end do not
    assert evaluate_classifier(model, data, PRESETS["raw"], labels=labels).scores["top-1"] == 1.0
    labels.write_text("w\nx\n")
    with pytest.raises(CalibrationError, match=r"labels\.txt: lacks 1 of the 2 classes .*: y\."):
        evaluate_classifier(model, data, PRESETS["raw"], labels=labels)


def test_fewer_folders_than_classes(tmp_path: Path) -> None:
    """Their places would be guessed: a perfect classifier would have no image right."""
    model = load(networks.save(brightness_classifier(8), tmp_path / "m.onnx"))
    data = labelled(tmp_path / "data", ["d", "h"], [60, 140])
    message = r"has 2 classes, but .* has 8\. Give --labels with the class of each score in order"
    with pytest.raises(CalibrationError, match=message):
        evaluate_classifier(model, data, PRESETS["raw"])
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join("abcdefgh"))
    assert evaluate_classifier(model, data, PRESETS["raw"], labels=labels).scores["top-1"] == 1.0
    data = labelled(tmp_path / "all", list("abcdefg"), [20 * (k + 1) for k in range(7)])
    assert evaluate_classifier(model, data, PRESETS["raw"], offset=1).scores["top-1"] == 1.0


def test_a_list_of_other_classes_than_the_models(tmp_path: Path) -> None:
    """What is right at the wrong places would count as wrong."""
    model = load(networks.save(brightness_classifier(8), tmp_path / "m.onnx"))
    data = labelled(tmp_path / "data", ["d", "h"], [60, 140])
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join("bcdefgh"))
    message = (
        r"labels\.txt: has 7 classes, but output 'scores' of .*m\.onnx has 8\. Give it a line for "
        "each score in order, the last with a name, or --label-offset"
    )
    with pytest.raises(CalibrationError, match=message):
        evaluate_classifier(model, data, PRESETS["raw"], labels=labels)
    found = evaluate_classifier(model, data, PRESETS["raw"], labels=labels, offset=1)
    assert (found.classes, found.scores["top-1"]) == (2, 1.0)
    labels.write_text("\n".join("abcdefghi"))
    with pytest.raises(CalibrationError, match=r"has 9 classes, but .* has 8\. Give it a line"):
        evaluate_classifier(model, data, PRESETS["raw"], labels=labels)


def test_labels_without_the_background(tmp_path: Path) -> None:
    """Where the first of 1001 scores is of none, ImageNet's numbers are one place too low."""
    model = load(networks.save(brightness_classifier(1001), tmp_path / "m.onnx"))
    table = tmp_path / "labels.csv"
    for level in range(6):
        Image.new("RGB", (8, 8), (20 * level,) * 3).save(tmp_path / f"{level}.png")

    def found(shift: int, **options: int) -> Evaluation:
        lines = [f"{level}.png,{level - shift}" for level in range(shift, 6)]
        table.write_text("\n".join(["file,label", *lines]))
        return evaluate_classifier(model, tmp_path, PRESETS["raw"], labels=table, **options)

    message = r"one place later, top-1 100\.00% instead of 0\.00%\. .* give --label-offset 1\."
    with pytest.raises(CalibrationError, match=message):
        found(1)
    assert found(1, offset=1).scores["top-1"] == 1.0
    assert found(0).scores["top-1"] == 1.0
    assert found(2).scores["top-1"] == 0.0


def test_labels_are_seen_to_fit_before_images_are_read(tmp_path: Path) -> None:
    """Where the graph says how many scores there are; where it does not, they tell."""
    proto = brightness_classifier(2)
    (tmp_path / "a.png").write_text("not an image")
    (tmp_path / "labels.csv").write_text("file,label\na.png,2\n")
    for message in (r"has 3 classes, but .* has 2; 1 images", "None of the 1 images can be read"):
        model = load(networks.save(proto, tmp_path / "m.onnx"))
        with pytest.raises(CalibrationError, match=message):
            evaluate_classifier(model, tmp_path, PRESETS["raw"], labels=tmp_path / "labels.csv")
        proto.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "C"
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(CalibrationError, match=r"has 3 classes, but .* has 2; 1 images"):
        evaluate_classifier(model, tmp_path, PRESETS["raw"], labels=tmp_path / "labels.csv")


def test_linked_folders_are_followed(tmp_path: Path) -> None:
    model = load(networks.save(brightness_classifier(2), tmp_path / "m.onnx"))
    data = labelled(tmp_path / "data", ["a"], [0])
    (data / "b").symlink_to(labelled(tmp_path / "elsewhere", ["b"], [20]) / "b")
    (data / "b" / "deep" / "round").symlink_to(tmp_path / "elsewhere")  # a way without an end
    found = evaluate_classifier(model, data, PRESETS["raw"])
    assert (found.samples, found.scores["top-1"]) == (4, 1.0)


def test_unreadable_images_are_skipped(tmp_path: Path) -> None:
    model = load(networks.save(brightness_classifier(2), tmp_path / "m.onnx"))
    data = labelled(tmp_path / "data", ["a", "b"], [0, 20])
    (data / "a" / "a.png").write_text("not an image")
    found = evaluate_classifier(model, data, PRESETS["raw"])
    assert (found.samples, found.scores["top-1"]) == (3, 1.0)
    assert found.skipped[0].startswith(str(data / "a" / "a.png"))


def test_data_that_does_not_fit(tmp_path: Path) -> None:
    model = load(networks.save(brightness_classifier(2), tmp_path / "m.onnx"))
    with pytest.raises(CalibrationError, match="no such folder of labelled images"):
        evaluate_classifier(model, tmp_path / "nowhere", PRESETS["raw"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(CalibrationError, match="there are none"):
        evaluate_classifier(model, tmp_path / "empty", PRESETS["raw"])
    data = labelled(tmp_path / "data", ["a", "b", "c"], [0, 20, 40])
    with pytest.raises(CalibrationError, match=r"has 3 classes, but output 'scores' .* has 2; 2"):
        evaluate_classifier(model, data, PRESETS["raw"])
    Image.new("RGB", (8, 8)).save(data / "loose.png")
    with pytest.raises(CalibrationError, match=r"the image loose\.png lies outside one"):
        evaluate_classifier(model, data, PRESETS["raw"])


def test_labels_from_a_table(tmp_path: Path) -> None:
    model = load(networks.save(brightness_classifier(5), tmp_path / "m.onnx"))
    for name, level in {"a.png": 0, "b.png": 40, "c.png": 60}.items():
        Image.new("RGB", (8, 8), (level,) * 3).save(tmp_path / name)
    table = tmp_path / "labels.csv"
    table.write_text("file,label\na.png,0\nb.png,2\nc.png,1\n")
    found = evaluate_classifier(model, tmp_path, PRESETS["raw"], labels=table)
    assert (found.samples, found.classes, found.scores["top-1"]) == (3, 3, 2 / 3)
    table.write_text("file,label\nb.png,2\nc.png,4\n")
    assert evaluate_classifier(model, tmp_path, PRESETS["raw"], labels=table).classes == 2
    table.write_text("file,label\nb.png,1\nc.png,2\n")
    assert (
        evaluate_classifier(model, tmp_path, PRESETS["raw"], labels=table, offset=1).scores["top-1"]
        == 1.0
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a line 'file,label' and one for each image"),
        ("file,label\n", "expected a line 'file,label' and one for each image"),
        ("a.png,0\n", "expected a line 'file,label'"),
        (
            "file,label\na.png,cat\na.png,-1\n",
            "2 of 2 lines have no file and number of its class",
        ),
        ("file,label\na.png,0\nx.png,1\n", r"1 of 2 images are not there: .*x\.png"),
        (
            "file,label\na.png,2\n",
            r"has 3 classes, but .* has 2; 1 images are beyond, as .*a\.png\. Correct the numbers",
        ),
        (f"file,label\na.png,{'9' * 5000}\n", "1 of 1 lines have no file and number of its class"),
    ],
)
def test_bad_tables(text: str, message: str, tmp_path: Path) -> None:
    model = load(networks.save(brightness_classifier(2), tmp_path / "m.onnx"))
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(CalibrationError, match=message):
        evaluate_classifier(model, tmp_path, PRESETS["raw"], labels=tmp_path / "labels.csv")


def test_one_class_alone(tmp_path: Path) -> None:
    model = load(networks.save(brightness_classifier(2), tmp_path / "m.onnx"))
    data = labelled(tmp_path / "data", ["b"], [20])
    with pytest.raises(CalibrationError, match="has one class only, b, so that its place"):
        evaluate_classifier(model, data, PRESETS["raw"])
    (tmp_path / "labels.txt").write_text("a\nb\n")
    found = evaluate_classifier(model, data, PRESETS["raw"], labels=tmp_path / "labels.txt")
    assert found.scores["top-1"] == 1.0
