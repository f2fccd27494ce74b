"""Raw data of any scanner into a dataset folder in fastMRI's form."""
