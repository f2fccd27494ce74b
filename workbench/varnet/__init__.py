"""The end-to-end VarNet: network, training, metrics, reconstruction."""
