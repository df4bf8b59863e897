"""TWIN: training losses, which some files carry."""

from __future__ import annotations

__all__: list[str] = []
