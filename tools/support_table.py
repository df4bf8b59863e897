"""Write the table of supported operators into docs/operators.md, from the registry.

python tools/support_table.py
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

from fcpts_onnx.ops import supported_ops

PAGE = Path(__file__).resolve().parent.parent / "docs" / "operators.md"
BEGIN, END = "<!-- operators: tools/support_table.py -->\n", "<!-- /operators -->"


def table() -> str:
    """The operators by family, one row each; those outside the default domain by domain."""
    families: dict[str, set[str]] = defaultdict(set)
    for known in supported_ops():
        family = known.domain or known.function.__module__.rsplit(".", 1)[-1]
        families[family].add(known.name)
    rows = [f"| {family} | {', '.join(sorted(names))} |" for family, names in families.items()]
    return "\n".join(["| family | operators |", "|---|---|", *sorted(rows)]) + "\n"


def with_table(text: str) -> str:
    """The text with the table between its marks."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + table() + END + after


if __name__ == "__main__":
    current = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(with_table(current), encoding="utf-8")
    sys.stdout.write(table())
