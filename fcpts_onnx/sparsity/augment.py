"""LEARN: which random views of the calibration images keep their meaning, by the dense network."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fcpts_onnx.calibration import Calibration
from fcpts_onnx.sparsity.losses import class_scores
from fcpts_onnx.twin import Twin

__all__ = ["AGREEMENT", "usable_views"]

AGREEMENT = 0.75
"""A kind of view is used when the dense network gives at least this share of its views the class
of the image itself. Measured: a flip leaves 63 % of digits in their class, and 92 to 99 % of
objects; a shift leaves 63 % with a network that was trained without, and 86 to 98 % with others."""

_SAMPLES = 256
_BATCH = 64


@torch.no_grad()
def usable_views(twin: Twin, calibration: Calibration, kinds: Sequence[str]) -> dict[str, float]:
    """The agreement of the dense network with itself for each kind of view, 0 to 1.

    Kinds are left out where nothing can be said: there are no images, or no class scores. A
    mixture of two images shows neither of them; whatever the dense network sees there agrees.
    """
    agreement: dict[str, list[torch.Tensor]] = {}
    generator = torch.Generator().manual_seed(0)
    places = torch.arange(min(len(calibration), _SAMPLES))
    for chosen in places.split(_BATCH) if calibration.has_images else ():
        plain = twin(calibration.take(chosen))
        for kind in kinds:
            viewed = twin(calibration.views(chosen, [kind], generator))
            for name in twin.output_names:
                before, after = class_scores(plain[name]), class_scores(viewed[name])
                if before is not None and after is not None:
                    same = (before.argmax(1) == after.argmax(1)) | (kind == "mix")
                    agreement.setdefault(kind, []).append(same.float())
    return {kind: float(torch.cat(parts).mean()) for kind, parts in agreement.items()}
