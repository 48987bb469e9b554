"""How often the file of a stage predicts what its Keras network predicts, over the test split.

    python -m benchmarks.agreement RUN_DIR [RUN_DIR ...]

For each stage folder of finished runs: the share of test samples with the same class, and the
accuracy of both. The runs' own records have the same share over validation samples.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import keras
import numpy as np
from omegaconf import OmegaConf

from netopt_cli.components import build
from netopt_cli.contracts import Timing
from netopt_cli.graph import fake_quant  # makes its layers known to Keras
from netopt_cli.measure.runtime import LitertRunner

_BATCH = 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN_DIR")
    for run in parser.parse_args().runs:
        cfg = OmegaConf.load(run / "config.yaml")
        data = build(cfg.data, where="data", seed=cfg.seed)
        batches = list(data.normalized_batches(data.test, _BATCH))
        labels = np.concatenate([y for _, y in batches])
        for file in sorted(run.glob("*/model.tflite")):
            model = keras.saving.load_model(file.with_name("model.keras"), compile=False)
            runner = LitertRunner(file, Timing(), os.cpu_count() or 1)
            network = np.concatenate(
                [model(x, training=False).numpy().argmax(axis=-1) for x, _ in batches]
            )
            exported = np.concatenate(
                [logits.argmax(axis=-1) for logits in runner.logits(x for x, _ in batches)]
            )
            rounded = sum(1 for _ in fake_quant.quantizers(model))
            print(
                f"{file.parent}: {np.mean(network == exported):.2%} alike of {len(labels):,}, "
                f"network {np.mean(network == labels):.2%}, file {np.mean(exported == labels):.2%}"
                f"{f', {rounded} quantizers' if rounded else ''}",
                flush=True,
            )


if __name__ == "__main__":
    main()
