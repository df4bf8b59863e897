"""TWIN: attention and what comes with it."""

from __future__ import annotations

__all__: list[str] = []
