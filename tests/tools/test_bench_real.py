"""The table of real models: a line for what is served, and the reason for what is not."""

from __future__ import annotations

from tools.bench_real import table

MACHINE = {"date": "2026-11-22"}


def test_a_line_for_each_model() -> None:
    served = {
        "model": "a", "steps": 40, "batch": 16, "opset": 11, "prunable": 1200,
        "heads": ("x: of (kl)", "y: of (mse)"),
        "parity": 1e-6, "seconds": 3.0, "cosine": 0.91, "agreement": [0.8], "top1": [0.9, 0.85],
        "machine": MACHINE,
    }  # fmt: skip
    refused = {**served, "model": "b", "opset": 9, "prunable": 0, "refused": "why"}
    lines = list(table([served, refused]))
    assert lines[0].startswith("Each model pruned to 70% zeros in 40 steps of 16 samples,")
    assert lines[4] == (
        "| a | 11 | 1,200 | 1 kl, 1 mse | 1.0e-06 | 3.0 | 0.910 | 80.0% | 90.00%, 85.00% |"
    )
    assert lines[5].startswith("| b | 9 | 0 | refused: why |")
    assert lines[-1] == "- date 2026-11-22"
