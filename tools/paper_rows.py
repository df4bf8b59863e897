"""The paper's tables and figures, row by row, and what each row needs."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

PAPER = Path(__file__).with_name("paper.csv")
NAMES = {
    "dense": "dense",
    "POT": "pot-l2norm",
    "POT (L2Norm)": "pot-l2norm",
    "POT(L2Norm)": "pot-l2norm",
    "POT (ERK)": "pot-erk",
    "POT(ERK)": "pot-erk",
    "STR": "str",
    "ProbMask": "probmask",
    "Ours": "fcpts",
}
PUBLISHED = "fcpts-paper"  # what the paper says that its own rows are
DEVICE = "cv22"
DETECTION = ("voc", "coco")
TIMED = 70  # per cent of zeros at which Table 6 is timed
ACCURACY = "top-1/top-5 %"
PRECISION = "mAP % as VOC 2010 / VOC 2007 count it"
MINUTES = "minutes"
BY_LAYER = "zeros by layer"
Row = tuple[str, str, str]
"""Data set, network and method."""


@dataclass
class Item:
    """A table or a figure: what is run for it, and what the paper has.

    Attributes:
        shows: what its cells are.
        anywhere: whether it can be made of networks on any data set.
        targets: shares of zeros in per cent, by data set.
        paper: its values by row and per cent of zeros; of figures it prints none.
    """

    shows: str
    anywhere: bool = False
    rows: list[Row] = field(default_factory=list)
    targets: dict[str, list[int]] = field(default_factory=dict)
    paper: dict[tuple[Row, int], str] = field(default_factory=dict)

    def add(self, row: Row, target: int, value: str = "") -> None:
        """Note a row, a target and perhaps the value there."""
        if row not in self.rows:
            self.rows.append(row)
        known = self.targets.setdefault(row[0], [])
        if target and target not in known:
            known.append(target)
            known.sort()
        if value:
            other = self.paper.get((row, target))
            self.paper[row, target] = f"{other}, {value}" if other else value

    def targets_on(self, dataset: str) -> list[int]:
        """The shares of zeros to run, of all data sets where there is none on this one."""
        every = {target for targets in self.targets.values() for target in targets}
        return self.targets.get(dataset) or sorted(every)


def items(published: bool = False) -> dict[str, Item]:
    """All tables and figures that need a run.

    Args:
        published: whether Algorithm 1 has rows beside those of this tool's own way.
    """
    found = {
        "table1": Item(ACCURACY), "table2": Item(ACCURACY),
        "table3": Item(ACCURACY), "table4": Item(ACCURACY),
        "table5": Item(PRECISION), "table6": Item(MINUTES, anywhere=True), "table7": Item(DEVICE),
        "figure1": Item(ACCURACY, anywhere=True), "figure4": Item(ACCURACY, anywhere=True),
        "figure5": Item(BY_LAYER, anywhere=True),
    }  # fmt: skip
    with PAPER.open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            network = line["model"].replace(" ", "-")
            row = (line["dataset"].lower(), network, NAMES[line["method"]])
            unit = f" {line['unit'].split()[0]}" if line["dataset"] == "CV22" else ""
            target = int(line["sparsity"] or TIMED)
            table = found[f"table{line['table']}"]
            table.add(row, target, line["value"] + unit)
            if published and line["method"] == "Ours":
                table.add((*row[:2], PUBLISHED), target, line["value"] + unit)
    pot, rates = ("pot-l2norm", "pot-erk"), ("fcpts-erk", "fcpts")
    trio = (*pot, "fcpts")
    for item, dataset, networks, methods, targets in (
        # Not the paper's: what there are trained files and labels of for everybody.
        ("table4", "cifar-10", ["ViT"], trio, [50, 60, 70]),
        ("table5", "coco", ["MobileNetV1-SSD", "YOLO-Fastest", "FastestDet"], trio, [70, 80, 90]),
        ("figure1", "imagenet", ["ResNet-50"], trio, [50, 60, 70, 80, 90]),
        ("figure4", "imagenet", ["ResNet-50", "RegNetX-400M", "MobileNetV2"], rates, [80, 90]),
        ("figure5", "imagenet", ["ResNet-18", "ResNet-50"], trio, [90]),
        ("figure5", "cifar-100", ["ResNet-32", "ResNet-56"], trio, [90]),
    ):
        for network, method, target in product(networks, methods, targets):
            found[item].add((dataset, network, method), target)
    return found


def named(item: str, row: Row) -> str:
    """A row's name on the command line."""
    return "/".join((item, *row)).lower()


def names_any(part: str, known: Mapping[str, Item]) -> bool:
    """Whether a name on the command line is that of a row, of any network's where it fits."""
    table, _, rest = part.lower().partition("/")
    if table not in known or not known[table].anywhere:
        return table in known and any(matching(table, known[table].rows, [part]))
    _, _, network = rest.partition("/")
    _, _, method = network.partition("/")
    return not method or method in {name for _, _, name in known[table].rows}


def matching(item: str, rows: Iterable[Row], wanted: Sequence[str]) -> Iterator[Row]:
    """The rows that were asked for, all of them if none was."""
    starts = [f"{part.lower().rstrip('/')}/" for part in wanted] or [""]
    for row in rows:
        if any(f"{named(item, row)}/".startswith(start) for start in starts):
            yield row


def needs(row: Row) -> str:
    """What a user has to have for a row."""
    dataset, network, _ = row
    if dataset == DEVICE:
        return "an Ambarella CV22; not run here"
    given = f"--{dataset.replace('-', '')} DIR --model {dataset}/{network}=FILE"
    if dataset not in DETECTION:
        return given
    also = (f"--{option} {dataset}/{network}" for option in ("detector", "preprocess"))
    return f"{given} {'=FILE.toml '.join(also)}=PRESET"
