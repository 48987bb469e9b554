"""Networks, one file each: `build(shape, classes, **parameters)` returns a model of logits."""
