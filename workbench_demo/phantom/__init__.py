"""A small synthetic dataset in fastMRI's own format: brains from an MR atlas, knees from formulas.

Every file says that it is synthetic in its attributes, so that no figure made from it can be taken
for a patient's.
"""
