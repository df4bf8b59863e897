"""List what the package needs, with versions and licences, from what is installed here.

    python -m tools.licences

Starts from the requirements and extras in pyproject.toml and follows what each package says it
needs on this system. What is not installed is listed without a licence.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageMetadata, PackageNotFoundError, metadata, requires
from pathlib import Path

import click
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "tools" / "results" / "licences.md"
ABSENT = "not installed here"
_CLASSIFIER = "License :: OSI Approved :: "
_LONGEST = 60  # characters; a licence field may hold the whole text


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=TABLE, show_default=False)
def main(out: Path) -> None:
    """Write the table."""
    out.write_text(table(), encoding="utf-8")
    click.echo(f"{out}: written")


def table() -> str:
    """All packages, a row each: name, version, licence, what needs it."""
    users: dict[str, set[str]] = {}
    for user, requirements in own_requirements().items():
        for name in followed(requirements):
            users.setdefault(name, set()).add(user)
    rows = [row(name, users[name]) for name in sorted(users)]
    head = [
        "# Dependencies and their licences",
        "",
        "Made by `python -m tools.licences` from an environment with `constraints.txt`, on Linux,",
        "torch as a build for processors. All that is needed to run is marked `run`, all else is",
        "for the extra of that name.",
        "",
        "| package | version | licence | needed for |",
        "|---|---|---|---|",
    ]
    return "\n".join([*head, *rows]) + "\n"


def own_requirements() -> dict[str, list[Requirement]]:
    """What pyproject.toml asks for: to run, and by extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = {"run": project["dependencies"], **project["optional-dependencies"]}
    return {name: [Requirement(entry) for entry in group] for name, group in groups.items()}


def followed(requirements: list[Requirement]) -> set[str]:
    """The names of packages, and of what they need in turn."""
    found, left = set[str](), list(requirements)
    while left:
        requirement = left.pop()
        name = canonicalize_name(requirement.name)
        if name not in found:
            found.add(name)
            left.extend(_needs(name, requirement.extras))
    return found


def row(name: str, users: set[str]) -> str:
    """A package's row; what is needed to run is needed for every extra too."""
    shown = "run" if "run" in users else ", ".join(sorted(users))
    try:
        found = metadata(name)
    except PackageNotFoundError:
        return f"| {name} | | {ABSENT} | {shown} |"
    return f"| {found['Name']} | {found['Version']} | {licence(found)} | {shown} |"


def licence(found: PackageMetadata) -> str:
    """What a package says of its licence: an SPDX expression, a classifier, or a few words."""
    if expression := found.get("License-Expression"):
        return str(expression)
    classifiers = [
        entry.removeprefix(_CLASSIFIER)
        for entry in found.get_all("Classifier") or []
        if entry.startswith(_CLASSIFIER)
    ]
    if classifiers:
        return ", ".join(classifiers)
    words = str(found.get("License") or "").strip().splitlines() or ["not said"]
    return words[0][:_LONGEST]


def _needs(name: str, extras: set[str]) -> Iterator[Requirement]:
    """What an installed package needs on this system, with some of its extras."""
    try:
        entries = requires(name) or []
    except PackageNotFoundError:
        return
    for requirement in map(Requirement, entries):
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield requirement


if __name__ == "__main__":
    main()
