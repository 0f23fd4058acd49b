"""The stages of a training, in the order of `cxrcl.app.train.train`: each takes the results of those before it."""
