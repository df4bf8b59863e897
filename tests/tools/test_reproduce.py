"""The paper's tables and figures from one command: what it names, runs, and leaves out."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fcpts_onnx.methods import METHODS
from fcpts_onnx.preprocess import Preprocess
from fcpts_onnx.results import Comparison, Trial
from tests import networks
from tests.networks import save_images
from tools import paper_rows, reproduce


def run(*options: str) -> Result:
    return CliRunner().invoke(reproduce.main, options)


@pytest.fixture
def cifar(place: Path) -> Path:
    """A data set as a user has it."""
    (place / "cifar").mkdir()
    (place / "images").rename(place / "cifar" / "calib")
    (place / "labelled").rename(place / "cifar" / "val")
    return place / "cifar"


def test_every_row_is_named_with_what_it_needs() -> None:
    result = run("--list")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    names = [line.split()[0] for line in lines]
    assert len(names) == len(set(names)) == 101
    counts = [sum(name.startswith(f"table{table}/") for name in names) for table in range(1, 8)]
    assert counts == [3, 16, 25, 11, 17, 4, 4]
    for line in lines:
        name, *rest = line.split()
        assert any(part.endswith("=FILE") for part in rest) or "CV22" in line
        assert run("--list", name).output.splitlines() == [line]
        assert name.rsplit("/")[-1] in {*METHODS, "dense"}


def test_the_papers_values() -> None:
    """Some of each table, read off the paper by hand."""
    items = paper_rows.items()
    for item, row, target, value in (
        ("table1", ("imagenet", "ResNet-18", "str"), 60, "✗"),
        ("table2", ("cifar-10", "ResNet-32", "pot-erk"), 90, "21.87/74.36"),
        ("table2", ("cifar-100", "ResNet-56", "fcpts"), 70, "72.16/92.02"),
        ("table2", ("cifar-10", "ResNet-56", "dense"), 0, "94.37/99.83"),
        ("table3", ("imagenet", "RegNetX-400M", "probmask"), 80, "38.59/69.14"),
        ("table3", ("imagenet", "ResNet-50", "fcpts"), 90, "56.91/84.86"),
        ("table4", ("imagenet", "ViT-Large", "pot-erk"), 70, "71.02/91.23"),
        ("table5", ("voc", "MobileNetV2-SSD-Lite", "pot-l2norm"), 90, "16.4"),
        ("table6", ("imagenet", "ResNet-18", "fcpts"), 70, "29"),
        ("table7", ("cv22", "ResNet-18", "fcpts"), 70, "7.599 ms, 5.245 MB"),
    ):
        assert items[item].paper[row, target] == value
    assert len(items["table3"].paper) == 5 * 4 * 5 + 5


def test_targets_are_those_of_a_data_set() -> None:
    """Tables of the paper have others than what is run beside them."""
    table = paper_rows.items()["table5"]
    assert (table.targets_on("voc"), table.targets_on("coco")) == ([90], [70, 80, 90])
    figure = paper_rows.items()["figure5"]
    assert figure.targets_on("cifar-10") == figure.targets_on("imagenet") == [90]


def test_images_of_imagenet_are_scaled_as_usual(
    cifar: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resized: list[int | None] = []

    def noted(*_: object, preprocess: Preprocess | str, **__: object) -> Comparison:
        resized.append(Preprocess.of(preprocess).resize)
        return Comparison("m", None, ())

    monkeypatch.setattr(reproduce.fcpts_onnx, "compare", noted)
    folders = ("--cifar10", str(cifar), "--imagenet", str(cifar), "--out", str(place / "out"))
    for row in ("imagenet/ResNet-50", "cifar-10/ResNet-32"):
        run("figure1", *folders, "--model", f"{row}={place / 'in.onnx'}")
    run(
        "figure1", *folders, "--model", f"imagenet/ResNet-50={place / 'in.onnx'}", "--preprocess",
        "imagenet/ResNet-50=tf",
    )  # fmt: skip
    assert resized == [256, None, None]


def test_a_row_is_run_beside_the_papers_value(cifar: Path, place: Path) -> None:
    options = (
        "table2/cifar-10/resnet-32/pot-erk", "table2/cifar-10/resnet-56", "--cifar10", str(cifar),
        "--model", f"cifar-10/ResNet-32={place / 'in.onnx'}", "--out", str(place / "out"),
    )  # fmt: skip
    result = run(*options)
    assert result.exit_code == 0, result.output
    page = (place / "out" / "reproduce.md").read_text()
    assert "## Table2: top-1/top-5 %" in page
    assert "(paper 93.53/99.77)" in page
    (line,) = (line for line in page.splitlines() if line.startswith("| pot-erk "))
    assert all(f"({value})" in line for value in ("90.95/99.62", "84.91/98.59", "21.87/74.36"))
    assert "Left out, since no file or data was given: ResNet-56 on cifar-10." in page
    assert (place / "out" / "cifar-10-ResNet-32" / "pot-erk-0.9.onnx").is_file()
    assert "3 runs, 3 of them done before" in run(*options).output


def test_networks_that_the_paper_does_not_have(cifar: Path, place: Path) -> None:
    result = run(
        "figure5", "table6", "--cifar10", str(cifar), "--out", str(place / "out"), "--recipe",
        str(place / "quick.toml"), "--model", f"cifar-10/ResNet-20={place / 'in.onnx'}",
        "--preprocess", "cifar-10/ResNet-20=raw",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    page = (place / "out" / "reproduce.md").read_text()
    assert "| layer | pot-l2norm | pot-erk | fcpts |" in page
    assert "| conv.w | " in page
    assert "## Table6: minutes" in page
    assert "Layer-wise (pot-l2norm) takes " in page
    assert (place / "out" / "cifar-10-resnet-20-timed" / "pot-l2norm-0.7.onnx").is_file()
    assert "ResNet-32 on cifar-100, ResNet-18 on imagenet" in page


def test_a_network_runs_for_the_rows_that_list_it(
    cifar: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others for what is named, where that is not a table of other networks."""
    compared: list[list[str]] = []

    def noted(*_: object, methods: list[str], **__: object) -> Comparison:
        compared.append(methods)
        return Comparison("m", None, ())

    def ran(network: str, *rows: str) -> list[list[str]]:
        compared.clear()
        result = run(
            *rows, "--cifar10", str(cifar), "--imagenet", str(cifar), "--out", str(place / "out"),
            "--model", f"{network}={place / 'in.onnx'}",
        )  # fmt: skip
        assert result.exit_code == 0, result.output
        return [*compared]

    monkeypatch.setattr(reproduce.fcpts_onnx, "compare", noted)
    trio = ["pot-l2norm", "pot-erk", "fcpts"]
    assert ran("cifar-10/ResNet-32") == [trio]
    assert ran("cifar-10/ResNet-32", "table2", "table4", "figure5") == [trio, trio]
    table3, figure1, figure4, figure5 = ran("imagenet/ResNet-50")
    assert table3 == ["pot-l2norm", "pot-erk", "probmask", "fcpts"]
    assert figure1 == figure5 == trio
    assert figure4 == ["fcpts-erk", "fcpts"]
    assert ran("imagenet/ResNet-50", "table1", "table4") == []
    assert ran("cifar-10/ResNet-20", "table4", "table1") == [trio]


def test_algorithm_1_beside_the_papers_values(cifar: Path, place: Path) -> None:
    row = "table2/cifar-10/resnet-32/fcpts-paper"
    assert f"no row begins with {row}" in run(row, "--list").output
    assert run(row, "--list", "--algorithm-1").output.startswith(row)
    result = run(
        row, "--algorithm-1", "--cifar10", str(cifar), "--out", str(place / "out"), "--samples",
        "8", "--model", f"cifar-10/ResNet-32={place / 'in.onnx'}",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    (line,) = (li for li in result.output.splitlines() if li.startswith("| fcpts-paper | "))
    ours = paper_rows.items()["table2"].paper[("cifar-10", "ResNet-32", "fcpts"), 90]
    assert f"({ours})" in line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("table9", "--out", "OUT"), "no row begins with table9"),
        (("table2", "tabel3", "--list"), "no row begins with tabel3"),
        (("table2/cifar-10/resnet-20", "--list"), "no row begins with table2/cifar-10/resnet-20"),
        (("figure5/cifar-10/resnet-20/best", "--list"), "no row begins with figure5/"),
        (
            (
                "--cifar10",
                "CIFAR",
                "--model",
                "cifar-10/a=MODEL",
                "--preprocess",
                "cifar-10/b=raw",
                "--out",
                "OUT",
            ),
            "cifar-10/b: there is no --model of that name",
        ),
        (
            ("--model", "cifar-10/a=MODEL", "--model", "CIFAR-10/A=MODEL", "--out", "OUT"),
            "CIFAR-10/A: has more than one --model.",
        ),
        (
            ("--model", "cifar-10/a=MODEL", "--labels", "cifar=MODEL", "--out", "OUT"),
            "--labels cifar: there is no --model on that data.",
        ),
        (("table2",), "say with --out"),
        (
            ("--cifar10", "CIFAR", "--model", "cifar-10/a=MODEL", "--out", "OUT"),
            "the paper does not have a on cifar-10: name the tables and figures to run",
        ),
        (("--model", "ResNet-32=in.onnx", "--out", "OUT"), "expected DATASET/NETWORK=..."),
        (("--model", "cifar-10/ResNet-32=in.onnx", "--out", "OUT"), "no folder for 'cifar-10'"),
        (("--cifar10", "CIFAR", "--model", "cifar-10/a=none.onnx", "--out", "OUT"), "no such file"),
        (
            ("--cifar10", "OTHER", "--model", "cifar-10/a=MODEL", "--out", "OUT"),
            "expected calib or",
        ),
    ],
)
def test_wrong_usage(
    options: tuple[str, ...], message: str, cifar: Path, place: Path, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    places = {"OUT": place / "out", "CIFAR": cifar, "OTHER": tmp_path / "other"}
    texts = [str(places.get(option, option)) for option in options]
    texts = [text.replace("MODEL", str(place / "in.onnx")) for text in texts]
    result = run(*texts)
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.output.split())


def test_names_as_the_list_has_them(cifar: Path, place: Path) -> None:
    result = run(
        "table2/cifar-10/resnet-32/pot-erk", "--cifar10", str(cifar), "--out", str(place / "out"),
        "--model", f"cifar-10/resnet-32={place / 'in.onnx'}", "--preprocess",
        "CIFAR-10/ResNet-32=raw",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    page = (place / "out" / "reproduce.md").read_text()
    assert "(90.95/99.62)" in page
    assert "Left out" not in page


def test_what_goes_wrong_is_said(cifar: Path, place: Path) -> None:
    result = run(
        "figure5", "--cifar10", str(cifar), "--out", str(place / "out"), "--recipe", "nope",
        "--model", f"cifar-10/a={place / 'in.onnx'}",
    )  # fmt: skip
    assert result.exit_code == 1
    assert "Left out: a on cifar-10: Recipe 'nope' is unknown" in result.output
    assert "Error: No network could be used; the lines above say why." in result.output


def test_a_network_that_cannot_be_used_is_left_out(cifar: Path, place: Path) -> None:
    (place / "broken.onnx").write_text("no model")
    result = run(
        "table2/cifar-10/resnet-56/dense", "table2/cifar-10/resnet-32/pot-erk", "--cifar10",
        str(cifar), "--model", f"cifar-10/ResNet-56={place / 'broken.onnx'}",
        "--model", f"cifar-10/ResNet-32={place / 'in.onnx'}", "--out", str(place / "out"),
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    table, _, below = (place / "out" / "reproduce.md").read_text().partition("Left out: ")
    assert "| pot-erk | " in table
    assert below.startswith("ResNet-56 on cifar-10: ")
    assert "broken.onnx: not an ONNX model" in below


def test_what_brackets_have_is_said_of_minutes_too(
    cifar: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The paper has no dense row there."""
    trial = Trial("fcpts", 0.7, 0, "a.onnx", 7, 10, seconds=60)
    monkeypatch.setattr(
        reproduce.fcpts_onnx, "compare", lambda *_, **__: Comparison("m", None, (trial,))
    )
    options = ("table6", "--imagenet", str(cifar), "--out", str(place / "out"), "--model")
    ours, others = (
        run(*options, f"imagenet/{name}={place / 'in.onnx'}").output
        for name in ("ResNet-18", "ResNet-20")
    )
    assert "| fcpts | 1.0 (29) |" in ours
    assert "The paper's values in brackets." in ours
    assert "| fcpts | 1.0 |" in others
    assert "brackets" not in others


def test_a_dense_network_alone(cifar: Path, place: Path) -> None:
    result = run(
        "table2/cifar-10/resnet-32/dense", "--cifar10", str(cifar), "--out", str(place / "out"),
        "--model", f"cifar-10/ResNet-32={place / 'in.onnx'}",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    page = (place / "out" / "reproduce.md").read_text()
    assert "ResNet-32 on cifar-10, dense " in page
    assert "(paper 93.53/99.77)" in page
    assert "|" not in page


def test_detection(place: Path) -> None:
    data = place / "voc"
    data.mkdir()
    (place / "images").rename(data / "train")
    save_images(data / "test", 4)
    (data / "Annotations").mkdir()
    for image in (data / "test").iterdir():
        (data / "Annotations" / f"{image.stem}.txt").write_text("1 0.5 0.5 0.5 0.5\n")
    (place / "names.txt").write_text("cow\ncat\n")
    (place / "d.toml").write_text('kind = "fastestdet"\nclasses = ["cat", "dog"]\n')
    networks.save(networks.detector(), place / "in.onnx")
    key = "voc/MobileNetV1-SSD"
    options = (
        f"table5/{key}/pot-erk".lower(), "--voc", str(data),
        "--model", f"{key}={place / 'in.onnx'}", "--out", str(place / "out"),
    )  # fmt: skip
    result = run(*options)
    assert result.exit_code == 2
    assert "say with --detector voc/mobilenetv1-ssd=FILE.toml" in result.output
    meaning = ("--detector", f"{key}={place / 'd.toml'}")
    message = "say with --preprocess voc/mobilenetv1-ssd=PRESET how pixels become its inputs"
    assert message in " ".join(run(*options, *meaning).output.split())
    meaning += ("--preprocess", f"{key}=imagenet")
    assert "expected DATASET=FILE, as" in run(*options, *meaning, "--labels", "voc=none").output
    result = run(*options, *meaning, "--labels", f"voc={place / 'names.txt'}")
    assert result.exit_code == 0, result.output
    page = (place / "out" / "reproduce.md").read_text()
    assert "## Table5: mAP % as VOC 2010 / VOC 2007 count it" in page
    assert "(paper 67.7). The paper's values in brackets." in page
    assert "counts as VOC 2007 does" in page
    assert "(54.6) |" in page


def test_a_table_of_labels_is_taken(place: Path) -> None:
    save_images(place / "set" / "train", 16)
    save_images(place / "set" / "test", 4)
    names = sorted(path.name for path in (place / "set" / "test").iterdir())
    lines = ["file,label", *(f"{name},{label}" for label, name in enumerate(names))]
    (place / "set" / "val_labels.csv").write_text("\n".join(lines) + "\n")
    networks.save(networks.cnn(), place / "in.onnx")
    result = run(
        "table4/imagenet/vit-base/pot-erk", "--imagenet", str(place / "set"), "--model",
        f"imagenet/ViT-Base={place / 'in.onnx'}", "--out", str(place / "out"),
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "(68.04/89.91)" in (place / "out" / "reproduce.md").read_text()
