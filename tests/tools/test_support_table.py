"""The documented table of operators is that of the registry."""

from __future__ import annotations

from tools.support_table import PAGE, table, with_table


def test_the_page_is_up_to_date() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert with_table(text) == text, "run: python tools/support_table.py"
    assert "| conv | Conv, ConvTranspose |" in table()
