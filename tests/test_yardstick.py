"""The node tests that ship inside the onnx package, by a script that lies beside the checkout."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.shared import SHARED

SCRIPT = SHARED / "yardsticks" / "onnx_node_tests.py"
ROOT = Path(__file__).resolve().parent.parent

# Where onnxruntime and the suite disagree the twin sides with onnxruntime.
KNOWN = {
    "test_resize_downsample_scales_linear_align_corners": "onnxruntime keeps the scales as given",
    "test_resize_downsample_scales_cubic_align_corners": "onnxruntime keeps the scales as given",
    "test_maxunpool_export_with_output_shape": "onnxruntime takes the indices as of the result",
    "test_dft_inverse": "rounding of float32 at zero, where the tolerance is 1e-7",
    "test_dft_inverse_opset19": "rounding of float32 at zero, where the tolerance is 1e-7",
    "test_attention_4d_causal_fp16": "float16: 2 of 192 values differ in the last digit",
    "test_attention_4d_causal_fp16_expanded": "float16: 2 of 192 values differ in the last digit",
}

RUNS = {
    "vision to opset 17": (["--vision", "--max-opset", "17", "--initializers"], 566),
    "all": ([], 1350),
}


@pytest.mark.skipif(not SCRIPT.is_file(), reason="the yardstick is not beside this checkout")
@pytest.mark.parametrize("name", RUNS)
def test_node_tests_of_onnx(name: str, tmp_path: Path) -> None:
    options, least = RUNS[name]
    report = tmp_path / "report.json"
    subprocess.run(
        [sys.executable, str(SCRIPT), "--impl", "tools.yardstick_adapter:twin_impl",
         "--json", str(report), *options],
        cwd=ROOT, check=True, capture_output=True, env={"PYTHONPATH": str(ROOT), "PATH": ""},
    )  # fmt: skip
    cases = json.loads(report.read_text())["cases"]
    failed = {case["name"]: case for case in cases if case["verdict"] in ("wrong", "error")}
    assert {k: v["detail"] for k, v in failed.items() if k not in KNOWN} == {}
    assert sum(case["verdict"] == "passed" for case in cases) >= least
