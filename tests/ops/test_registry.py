"""The registry: look-up by opset, what a signature says, and that no operator lacks a case."""

from collections import defaultdict

import onnx
import pytest
from torch import Tensor

from fcpts_onnx.checks import OLDEST_OPSET
from fcpts_onnx.ops import find_op, op, supported_ops
from tests.ops import (
    test_activation,
    test_contrib,
    test_control,
    test_conv,
    test_detection,
    test_elementwise,
    test_indexing,
    test_linear,
    test_norm,
    test_pool,
    test_quantize,
    test_recurrent,
    test_reduce,
    test_resample,
    test_shape,
    test_signal,
)
from tests.ops.harness import NEWEST_IN_ONNXRUNTIME, schema_versions

FAMILIES = (
    test_activation,
    test_contrib,
    test_control,
    test_conv,
    test_detection,
    test_elementwise,
    test_indexing,
    test_linear,
    test_norm,
    test_pool,
    test_quantize,
    test_recurrent,
    test_reduce,
    test_resample,
    test_shape,
    test_signal,
)


def test_look_up_takes_the_greatest_version_not_above_the_opset() -> None:
    assert find_op("", "Softmax", 12).since == 1
    assert find_op("", "Softmax", 13).since == 13
    assert find_op("", "Softmax", 27).since == 13
    assert find_op("", "Pad", 1) is None
    assert find_op("com.example", "Relu", 13) is None


def test_signature_is_the_specification() -> None:
    reshape = find_op("", "Reshape", 14)
    assert reshape.numbers == {1}
    assert reshape.attributes == {"allowzero"}
    concat = find_op("", "Concat", 13)
    assert concat.max_inputs is None
    assert concat.required == {"axis"}
    assert find_op("", "Split", 13).wants_outputs


def test_registering_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="Relu since 1 is registered twice"):

        @op("Relu")
        def relu(x: Tensor) -> Tensor:
            return x


# What is stored as a tensor is read with the model; the rest is of types that no float comes from.
NOT_FOR_OPERATORS = defaultdict(
    set, Constant={"value", "sparse_value", "value_string", "value_strings"}
)


def test_every_attribute_of_the_schema_is_known() -> None:
    missing = []
    for schema in onnx.defs.get_all_schemas_with_history():
        known = find_op(schema.domain, schema.name, max(schema.since_version, OLDEST_OPSET))
        newer = [
            v for v in schema_versions(schema.name) if schema.since_version < v <= OLDEST_OPSET
        ]
        if known is not None and not newer and not schema.domain:
            unknown = set(schema.attributes) - known.attributes - NOT_FOR_OPERATORS[schema.name]
            missing += [(schema.name, schema.since_version, key) for key in unknown]
    assert sorted(missing) == []


# Claimed without a case in the tables, and why.
WITHOUT_CASES = {
    "If": "test_control has tests of its own",
    "Loop": "test_control has tests of its own",
    "Scan": "test_control has tests of its own",
    "GlobalLpPool": "its version 22 has a kernel in neither onnxruntime nor onnx",
    "MaxRoiPool": "its version 22 has a kernel in neither onnxruntime nor onnx",
    "Scatter": "its version 11 is deprecated: no checker lets it pass",
}


def versions_of(domain: str, name: str) -> list[int]:
    """The versions of an operator; those of onnxruntime's own domain have one."""
    return [1] if domain else schema_versions(name)


def test_every_operator_has_a_case_at_every_schema_version_it_claims() -> None:
    covered = {
        (case.domain, case.op, max(v for v in versions_of(case.domain, case.op) if v <= opset))
        for family in FAMILIES
        for case in family.CASES
        for opset in case.opsets()
    }
    claimed = set()
    for known in supported_ops():
        versions = versions_of(known.domain, known.name)
        oldest = max(
            (v for v in versions if v <= max(OLDEST_OPSET, known.since)), default=versions[0]
        )
        claimed |= {
            (known.domain, known.name, version)
            for version in versions
            if oldest <= version <= NEWEST_IN_ONNXRUNTIME
        }
    assert len(claimed) > 100
    missing = [entry for entry in claimed - covered if entry[1] not in WITHOUT_CASES]
    assert sorted(missing) == []
