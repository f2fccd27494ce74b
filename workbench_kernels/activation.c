/* Instance normalisation and leaky ReLU, a plane at a time: it is read from memory once, stays in a
 * core's cache while its mean and its deviation are formed, and is written once. Sums are of short
 * pieces first, and over pieces in double precision.
 */
#include "vectors.h"
#include <math.h>

enum { PIECE = 1024 };

static double total(const real *values, size_t count)
{
    double all = 0;
    for (size_t from = 0; from < count; from += PIECE) {
        size_t here = count - from < PIECE ? count - from : PIECE;
        real sum = 0;
        #pragma omp simd reduction(+ : sum)
        for (size_t i = 0; i < here; i++)
            sum += values[from + i];
        all += sum;
    }
    return all;
}

static double total_of_squares(const real *values, size_t count, real mean)
{
    double all = 0;
    for (size_t from = 0; from < count; from += PIECE) {
        size_t here = count - from < PIECE ? count - from : PIECE;
        real sum = 0;
        #pragma omp simd reduction(+ : sum)
        for (size_t i = 0; i < here; i++) {
            real centred = values[from + i] - mean;
            sum += centred * centred;
        }
        all += sum;
    }
    return all;
}

static ALWAYS_INLINE real leaky(real value, real slope) { return value > 0 ? value : value * slope; }

/* Normalise and activate `planes` of `count` values, in place where `out` is `in`.
 *
 * With `width` not 0 each plane comes as four, of every other row and column: (2, 2, height,
 * width), as a transposed convolution of 2x2 with stride 2 gives them, and is written woven:
 * (2 height, 2 width). `scales` becomes one over the deviation of each plane. */
void FUNCTION(activate)(const real *in, real *out, real *scales, size_t planes, size_t count,
                        size_t width, double epsilon, double slope_, int threads)
{
    const real slope = slope_;
    #pragma omp parallel for schedule(static) num_threads(threads)
    for (size_t plane = 0; plane < planes; plane++) {
        const real *from = in + plane * count;
        real *to = out + plane * count;
        const real mean = total(from, count) / count;
        const real scale = 1 / sqrt(total_of_squares(from, count, mean) / count + epsilon);
        scales[plane] = scale;
        if (!width) {
            #pragma omp simd
            for (size_t i = 0; i < count; i++)
                to[i] = leaky((from[i] - mean) * scale, slope);
            continue;
        }
        for (size_t row = 0; row < count / (2 * width); row++, to += 2 * width) {
            const real *even = from + (row % 2) * (count / 2) + row / 2 * width;
            const real *odd = even + count / 4;
            #pragma omp simd
            for (size_t i = 0; i < width; i++) {
                to[2 * i] = leaky((even[i] - mean) * scale, slope);
                to[2 * i + 1] = leaky((odd[i] - mean) * scale, slope);
            }
        }
    }
}

/* The gradient of `activate`'s input, given its result and the result's gradient. */
void FUNCTION(activate_gradient)(const real *result, const real *gradient, const real *scales,
                                 real *out, size_t planes, size_t count, size_t width,
                                 double slope_, int threads)
{
    const real slope = slope_, steep = 1 / slope_;
    #pragma omp parallel for schedule(static) num_threads(threads)
    for (size_t plane = 0; plane < planes; plane++) {
        const real *y = result + plane * count, *g = gradient + plane * count;
        real *to = out + plane * count;
        const real scale = scales[plane];
        double all = 0, all_along = 0;
        for (size_t from = 0; from < count; from += PIECE) {
            size_t here = count - from < PIECE ? count - from : PIECE;
            real sum = 0, along = 0;
            #pragma omp simd reduction(+ : sum, along)
            for (size_t i = from; i < from + here; i++) {
                real through = y[i] > 0 ? g[i] : g[i] * slope;
                sum += through;
                along += through * leaky(y[i], steep);
            }
            all += sum;
            all_along += along;
        }
        const real mean = all / count, tilt = all_along / count;
        #define BACK(at) \
            ((y[at] > 0 ? g[at] : g[at] * slope) - mean - leaky(y[at], steep) * tilt) * scale
        if (!width) {
            #pragma omp simd
            for (size_t i = 0; i < count; i++)
                to[i] = BACK(i);
            continue;
        }
        for (size_t row = 0; row < count / (2 * width); row++, y += 2 * width, g += 2 * width) {
            real *even = to + (row % 2) * (count / 2) + row / 2 * width, *odd = even + count / 4;
            #pragma omp simd
            for (size_t i = 0; i < width; i++) {
                even[i] = BACK(2 * i);
                odd[i] = BACK(2 * i + 1);
            }
        }
    }
}
