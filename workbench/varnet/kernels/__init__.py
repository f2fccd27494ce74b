"""Parts of the work in C, for CPUs: compiled where there is a compiler, else done by torch."""
