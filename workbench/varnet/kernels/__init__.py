"""Parts of the U-Net in C, for CPUs: compiled where there is a compiler, done by torch elsewhere."""
