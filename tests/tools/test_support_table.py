"""The README's table of operators is that of the registry."""

from __future__ import annotations

from tools.support_table import README, table, with_table


def test_the_readme_is_up_to_date() -> None:
    text = README.read_text(encoding="utf-8")
    assert with_table(text) == text, "run: python tools/support_table.py"
    assert "| conv | Conv, ConvTranspose |" in table()
