"""Makes the constant of `netopt_cli/export/prior.py`: `python -m benchmarks.packing_prior`.

The structures of the default `cnn` as an int8 and as a float32 file, coded without a prior. A new
one changes every packed file: raise the version of `export.packed` with it.
"""

import base64

import keras
import numpy as np

from netopt_cli.arch import cnn
from netopt_cli.contracts import ExportRecipe
from netopt_cli.export import flatbuffer
from netopt_cli.export.entropy import Encoder
from netopt_cli.export.litert import freeze, to_litert
from netopt_cli.export.strip import strip
from netopt_cli.export.tree import TreeCoder

SHAPE = (28, 28, 1)
LINE = 92


def main() -> None:
    keras.utils.set_random_seed(0)
    graph = freeze(cnn.build(SHAPE, 10))
    samples = np.random.default_rng(0).standard_normal((8, 1, *SHAPE)).astype(np.float32)
    coder = Encoder()
    trees = TreeCoder(coder)
    for recipe in (ExportRecipe("int8", len(samples)), ExportRecipe()):
        content = strip(to_litert(graph, recipe, iter(samples)))
        trees.code(flatbuffer.read(content), len(content))
    text = base64.b85encode(coder.finish()).decode()
    for start in range(0, len(text), LINE):
        print(f'    "{text[start : start + LINE]}"')


if __name__ == "__main__":
    main()
