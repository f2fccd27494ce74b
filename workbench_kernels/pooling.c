/* Means over 2x2 pixels, without overlap. */
#include "vectors.h"

/* Halve `planes` of (height, width); an odd last row or column is left out. */
void FUNCTION(pool)(const real *in, real *out, size_t planes, size_t height, size_t width,
                    int threads)
{
    const size_t rows = height / 2, columns = width / 2;
    #pragma omp parallel for schedule(static) num_threads(threads)
    for (size_t plane = 0; plane < planes; plane++)
        for (size_t row = 0; row < rows; row++) {
            const real *above = in + (plane * height + 2 * row) * width, *below = above + width;
            real *to = out + (plane * rows + row) * columns;
            #pragma omp simd
            for (size_t i = 0; i < columns; i++)
                to[i] = (above[2 * i] + above[2 * i + 1] + below[2 * i] + below[2 * i + 1]) / 4;
        }
}

/* The gradient of `pool`'s input, given that of its result. */
void FUNCTION(pool_gradient)(const real *gradient, real *out, size_t planes, size_t height,
                             size_t width, int threads)
{
    const size_t rows = height / 2, columns = width / 2;
    #pragma omp parallel for schedule(static) num_threads(threads)
    for (size_t plane = 0; plane < planes; plane++)
        for (size_t row = 0; row < height; row++) {
            real *to = out + (plane * height + row) * width;
            if (row / 2 == rows) {
                memset(to, 0, width * sizeof(real));
                continue;
            }
            const real *from = gradient + (plane * rows + row / 2) * columns;
            #pragma omp simd
            for (size_t i = 0; i < columns; i++)
                to[2 * i] = to[2 * i + 1] = from[i] / 4;
            if (width % 2)
                to[width - 1] = 0;
        }
}
