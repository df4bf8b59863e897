"""LEARN: gradients by onnxruntime-training, for `--engine ort`."""
