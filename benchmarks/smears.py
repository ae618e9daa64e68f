"""Train each network with several seeds on real smears and score it once on held-out ones.

    python -m benchmarks.smears TRAIN TEST -o DIR [--width 16 --ode-tol 1e-2 --max-epochs 50 ...]

TRAIN and TEST are folders of images/ and masks/. Every (network, seed) is a job of its own with a
result file in DIR: jobs that have one are not run again, a broken one goes on from its checkpoint,
and several processes may share the work. The table is over all jobs that are done.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

from bloodseg import BloodCellSegmenter
from bloodseg.datasets import load_folder
from bloodseg.metrics import mean_iou, segmentation_report

NETWORKS = ("nodes-unet", "unet", "resnet-unet")
SCORES = {
    "pixel_accuracy": "PA",
    "cpa_background": "CPA background",
    "cpa_red": "CPA red",
    "cpa_white": "CPA white",
    "iou_background": "IoU background",
    "iou_red": "IoU red",
    "iou_white": "IoU white",
    "mean_iou": "mean IoU",
}


def run_job(network, seed, train, test, arguments, folder):
    segmenter = BloodCellSegmenter(
        network=network,
        width=arguments.width,
        ode_tol=arguments.ode_tol,
        crop_size=arguments.crop_size,
        max_epochs=arguments.max_epochs,
        device=arguments.device,
        precision=arguments.precision,
        random_state=seed,
        checkpoint_dir=folder / "checkpoints",
    )
    start, cpu = time.perf_counter(), time.process_time()
    segmenter.fit(train.images, train.masks, groups=train.groups)
    result = {"network": network, "seed": seed, "parameters": count_weights(segmenter.network_)}
    result |= {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}
    result |= {"best_epoch": segmenter.best_epoch_, "history": segmenter.history_}
    result["precision"] = segmenter.precision_
    start = time.perf_counter()
    maps = segmenter.predict(test.images)
    result["predict_seconds"] = time.perf_counter() - start
    result |= segmentation_report(test.masks, maps)
    evaluations = segmenter.n_function_evaluations_
    result["evaluations"] = {position: n.mean() for position, n in evaluations.items()}
    result["work"] = work_of_blocks(segmenter, test)
    for precision in ("float32", "bfloat16"):
        again = segmenter.set_params(precision=precision).predict(test.images)
        result[f"mean_iou_{precision}"] = mean_iou(test.masks, again)
    segmenter.set_params(precision=arguments.precision)
    segmenter.save(folder / f"{network}-{seed}.safetensors")
    return result


def count_weights(network):
    return sum(weight.numel() for weight in network.parameters())


def work_of_blocks(segmenter, test):
    """What the ODE-blocks do: how far they move the state, and mean IoU without each of them."""
    work = {}
    for position, block in getattr(segmenter.network_, "ode_blocks", {}).items():
        moved = []

        def measure(module, inputs, output, moved=moved):
            before = inputs[0].float()
            moved.append(((output - before).square().mean() / before.square().mean()).sqrt().item())

        handle = block.register_forward_hook(measure)
        segmenter.predict(test.images)
        handle.remove()
        handle = block.register_forward_hook(lambda module, inputs, output: inputs[0].float())
        without = mean_iou(test.masks, segmenter.predict(test.images))
        handle.remove()
        work[position] = {"relative_change": statistics.mean(moved), "mean_iou_without": without}
    return work


def print_table(results):
    print("| network | weights | " + " | ".join(SCORES.values()) + " | training s |")
    print("|---" * (len(SCORES) + 3) + "|")
    for network in NETWORKS:
        rows = [result for result in results if result["network"] == network]
        if not rows:
            continue
        cells = [spread([100 * row[score] for row in rows], 2) for score in SCORES]
        seconds = spread([row["cpu_seconds"] for row in rows], 0)
        print(f"| {network} | {rows[0]['parameters']:,} | {' | '.join(cells)} | {seconds} |")


def spread(values, digits):
    """Return mean and standard deviation over seeds."""
    deviation = statistics.stdev(values) if len(values) > 1 else float("nan")
    return f"{statistics.mean(values):.{digits}f} ± {deviation:.{digits}f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--networks", nargs="+", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--seeds", nargs="+", type=int, default=(0, 1, 2))
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--crop-size", type=int, default=128)
    parser.add_argument("--ode-tol", type=float, default=1e-3)
    parser.add_argument("--max-epochs", type=int, default=50)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--threads", type=int, help="threads of torch")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    folder = arguments.output
    folder.mkdir(parents=True, exist_ok=True)
    train, test = load_folder(arguments.train), load_folder(arguments.test)
    for seed in arguments.seeds:
        for network in arguments.networks:
            file = folder / f"{network}-{seed}.json"
            claim = file.with_suffix(".claimed")
            try:
                claim.touch(exist_ok=False)
            except FileExistsError:  # another process has it
                continue
            try:
                if not file.exists():
                    result = run_job(network, seed, train, test, arguments, folder)
                    file.write_text(json.dumps(result, indent=1))
                    print(f"{file.stem}: mean IoU {result['mean_iou']:.4f}", flush=True)
            finally:
                claim.unlink()
    done = sorted(file for file in folder.glob("*.json"))
    print_table([json.loads(file.read_text()) for file in done])


if __name__ == "__main__":
    main()
