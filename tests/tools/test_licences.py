"""The list of dependencies has every one that pyproject.toml names, with a licence."""

from __future__ import annotations

from email.message import Message

import pytest
from packaging.requirements import Requirement

from tools.licences import ABSENT, TABLE, followed, licence, own_requirements, table


def rows(text: str) -> dict[str, list[str]]:
    """The cells behind each package's name, which is folded to lower case with hyphens."""
    lines = [line for line in text.splitlines() if line.startswith("| ")][1:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0].lower().replace("_", "-"): row[1:] for row in cells}


def test_every_requirement_is_in_the_table_that_is_kept() -> None:
    kept = rows(TABLE.read_text(encoding="utf-8"))
    for user, requirements in own_requirements().items():
        for requirement in requirements:
            _, found, users = kept[requirement.name.lower()]
            assert found, requirement
            assert found != ABSENT or user == "ort-training", requirement
            assert users == "run" or user in users.split(", "), requirement


def test_what_packages_need_in_turn_is_followed() -> None:
    assert {"torch", "sympy", "mpmath"} <= followed([Requirement("torch")])
    made = rows(table())
    assert made["mpmath"][2] == "run"
    assert made["pytest"][2] == "test"


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ({"License-Expression": "MIT", "License": "long text"}, "MIT"),
        ({"Classifier": "License :: OSI Approved :: BSD License"}, "BSD License"),
        ({"License": "Apache 2\nand what it says"}, "Apache 2"),
        ({}, "not said"),
    ],
)
def test_where_licences_are_said(entries: dict[str, str], expected: str) -> None:
    found = Message()
    for key, value in entries.items():
        found[key] = value
    assert licence(found) == expected
