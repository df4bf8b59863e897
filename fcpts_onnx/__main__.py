"""python -m fcpts_onnx: the command line."""

from fcpts_onnx.cli import main

if __name__ == "__main__":
    main()
