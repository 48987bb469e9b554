"""Networks, one file each: `build(shape, classes, **parameters)` returns a functional model of logits."""
