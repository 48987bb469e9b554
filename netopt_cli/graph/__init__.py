"""Reading and rewriting Keras functional graphs."""
