"""Recurrent networks against onnxruntime."""

import numpy as np
import pytest
import torch

from fcpts_onnx.ops import find_op
from tests.ops.harness import Case, check, expand, name_of, normal

SIZE = 4
X = normal(5, 3, 6)
LENGTHS = np.array([5, 2, 3], np.int32)
SOME_EMPTY = np.array([0, 5, 1], np.int32)
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
FUNCTIONS = {"RNN": 1, "GRU": 2, "LSTM": 3}
WITHOUT_PARAMETERS = ("Relu", "Tanh", "Sigmoid", "Softsign")
WITH_PARAMETERS = ("Affine", "LeakyRelu", "ThresholdedRelu", "ScaledTanh", "HardSigmoid", "Elu")


def weights(op: str, directions: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """W, R and B."""
    rows = GATES[op] * SIZE
    return (
        0.5 * normal(directions, rows, X.shape[-1], seed=1),
        0.5 * normal(directions, rows, SIZE, seed=2),
        normal(directions, 2 * rows, seed=3),
    )


def of_each(op: str) -> list[Case]:
    """What the three have in common."""
    w, r, b = weights(op)
    w2, r2, b2 = weights(op, 2)
    start, start2 = normal(1, 3, SIZE, seed=4), normal(2, 3, SIZE, seed=4)
    outputs = 3 if op == "LSTM" else 2
    size = {"hidden_size": SIZE}
    functions = FUNCTIONS[op]
    by_batch = {**size, "layout": 1}
    batch_first = (X.swapaxes(0, 1), w, r, b, None, start.swapaxes(0, 1))
    return [
        Case(op, (X, w, r), size),
        Case(op, (X, w, r, b, None, start), size, outputs=outputs),
        Case(op, (X, w, r, b, LENGTHS, start), size, outputs=outputs),
        Case(op, (X, w, r, b, SOME_EMPTY), size, outputs=outputs, note="empty"),
        Case(op, (X, w, r, b, None, start), {**size, "clip": 0.3}, outputs=outputs),
        *(
            Case(op, (X, w2, r2, b2, lengths, start2), {**size, "direction": "bidirectional"})
            for lengths in (None, LENGTHS, SOME_EMPTY)
        ),
        Case(op, (X, w, r, b), {**size, "direction": "reverse"}, outputs=outputs),
        Case(op, (X, w, r, b, LENGTHS), {**size, "direction": "reverse"}, outputs=outputs),
        *(
            Case(op, (X, w, r), {"activations": [name] * functions, **size})
            for name in (*WITHOUT_PARAMETERS, *WITH_PARAMETERS)
        ),
        *(
            Case(
                op,
                (X, w, r),
                {
                    "activations": [name] * functions,
                    "activation_alpha": [0.3, 0.5, 0.7][:functions],
                    "activation_beta": [0.2, 0.4, 0.6][:functions],
                    **size,
                },
                note="alpha",
            )
            for name in WITH_PARAMETERS
        ),
        Case(op, (X, w, r, b), {**size, "layout": 0}, since=14),
        # onnxruntime refuses the other layout.
        Case(op, batch_first, by_batch, since=14, outputs=outputs, unknown_to_onnxruntime=True),
    ]


CASES = [
    *(case for op in GATES for case in of_each(op)),
    Case("RNN", (X, *weights("RNN")[:2]), {"activations": ["Softplus"], "hidden_size": SIZE}),
    *(
        Case("GRU", (X, *weights("GRU"), LENGTHS), {"linear_before_reset": 1, **more}, outputs=2)
        for more in ({"hidden_size": SIZE}, {"hidden_size": SIZE, "clip": 0.3})
    ),
    *(
        Case(
            "LSTM",
            (
                X,
                *weights("LSTM"),
                lengths,
                *(normal(1, 3, SIZE, seed=s) for s in (4, 5)),
                peepholes,
            ),
            {"hidden_size": SIZE, **more},
            outputs=3,
        )
        for lengths in (None, LENGTHS)
        for peepholes in (None, normal(1, 3 * SIZE, seed=6))
        for more in ({}, {"input_forget": 1}, {"clip": 0.3})
    ),
    Case(
        "LSTM",
        (X, *weights("LSTM")),
        {
            "activations": ["HardSigmoid", "Tanh", "LeakyRelu"],
            "activation_alpha": [0.3, 0.2],
            "activation_beta": [0.4],
            "hidden_size": SIZE,
        },
    ),
]


@pytest.mark.parametrize(("case", "opset"), expand(CASES), ids=name_of)
def test_parity(case: Case, opset: int) -> None:
    check(case, opset)


@pytest.mark.parametrize("op", GATES)
def test_gradients(op: str) -> None:
    w, r, b = (torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in weights(op, 2))
    x = torch.tensor(X, dtype=torch.float64, requires_grad=True)
    lengths = torch.tensor(LENGTHS)

    def run(*tensors: torch.Tensor) -> torch.Tensor:
        found = find_op("", op, 22).function
        return found(*tensors, lengths, direction="bidirectional", outputs=1)[0]

    assert torch.autograd.gradcheck(run, (x, w, r, b), fast_mode=True)
