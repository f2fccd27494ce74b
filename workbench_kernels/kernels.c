/* Everything of one type of number: compile it with REAL as float, and as double. */
#include "activation.c"
#include "convolution.c"
#include "pooling.c"
#include "rows.c"
#include "similarity.c"
#include "tiles.c"

/* The narrowest image that `convolve` takes. */
size_t FUNCTION(lanes)(void) { return LANES; }
size_t FUNCTION(window)(void) { return WINDOW; }
