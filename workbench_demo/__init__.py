"""The main job on an embedded default: phantom data, served as fastMRI serves it."""
