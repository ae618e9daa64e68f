"""A network in torch against its ONNX file in onnxruntime.

    python -m benchmarks.export MODEL DIR [--quick] [--json FILE]

DIR is a folder of images/ and masks/; its first 16 images are taken, none larger than a megapixel,
as those go through the network whole; --quick takes two. Times are those of the processor, on one
thread, so that a busy machine can be told apart from slow code; preprocessing is in neither.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import onnxruntime
import torch

from bloodseg import BloodCellSegmenter
from bloodseg.datasets import load_folder
from bloodseg.export import to_onnx
from bloodseg.networks import for_prediction, image_tensor

from ._timing import machine, write_json


def processor_seconds(call):
    start = time.process_time()
    call()
    return time.process_time() - start


def compare(segmenter, path, images):
    """Return the median seconds an image, in torch and in onnxruntime, which take turns."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    network = for_prediction(segmenter.network_)
    tensors = [image_tensor(i)[None] for i in segmenter.preprocessor_.transform(images)]
    seconds = {"torch": [], "onnxruntime": []}
    with torch.inference_mode():
        for x in [tensors[0], *tensors]:
            inputs = {"images": x.numpy()}
            seconds["torch"].append(processor_seconds(lambda x=x: network(x)))
            seconds["onnxruntime"].append(
                processor_seconds(lambda inputs=inputs: session.run(None, inputs))
            )
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("folder", metavar="DIR")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    segmenter = BloodCellSegmenter.load(options.model).set_params(device="cpu")
    images = load_folder(options.folder).images[: 2 if options.quick else 16]
    with tempfile.TemporaryDirectory() as folder:
        written = to_onnx(segmenter, Path(folder) / "network.onnx", images)
        megabytes = written.path.stat().st_size / 1e6
        seconds = compare(segmenter, str(written.path), images)
    print(machine(torch.device("cpu")))
    print(f"steps {written.steps}, {megabytes:.1f} MB, {written.changed:.4%} of the pixels change")
    print(", ".join(f"{name} {value:.3f} s" for name, value in seconds.items()) + " an image")
    write_json(
        options.json,
        steps=written.steps,
        megabytes=megabytes,
        changed=written.changed,
        seconds=seconds,
    )


if __name__ == "__main__":
    main()
