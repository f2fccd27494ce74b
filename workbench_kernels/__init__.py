"""Parts of the work in C: compiled where there is a compiler, else done by torch and NumPy."""
