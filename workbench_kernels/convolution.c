/* 3x3 convolution of images with few channels, zero outside, stride 1, and its weights' gradient.
 *
 * An image is (channels, height, width), one row behind the other. A vector is a piece of a row, so
 * that no channel is padded: libraries that vectorise over channels compute 32 where a U-Net has
 * 18. A strip of rows is copied into a scratch with a zero on each side of a row, where it stays in
 * a core's cache; then a block of output channels times a few vectors is summed up in registers
 * over all input channels and taps.
 *
 * An input (and, in the adjoint, an output) may lie in two tensors, the first's channels first:
 * what a U-Net concatenates is never copied together.
 */
#include "vectors.h"

/* As many sums as there are registers for, and a few for what is added: 32, or 16 before AVX-512. */
#if defined(__AVX512F__) || !defined(__x86_64__)
enum { VECTORS = 4, GRADIENT_BLOCK = 3 };
#else
enum { VECTORS = 2, GRADIENT_BLOCK = 1 };
#endif
enum { BLOCK = 6, MOST = 3, TAPS = 9, ROWS = 32, BUDGET = 1 << 20 };

typedef struct {
    const real *data[2];
    size_t channels[2];
} Planes;

static inline const real *plane_of(const Planes *planes, size_t image, size_t channel, size_t size)
{
    int second = channel >= planes->channels[0];
    if (second)
        channel -= planes->channels[0];
    return planes->data[second] + (image * planes->channels[second] + channel) * size;
}

/* Rows of a strip such that its channels' scratch stays within the budget. */
static size_t strip_rows(size_t channels, size_t stride, size_t height)
{
    size_t rows = BUDGET / (channels * stride * sizeof(real));
    rows = rows > 2 ? rows - 2 : 1;
    if (rows > ROWS)
        rows = ROWS;
    return rows < height ? rows : height;
}

/* Copy rows top - margin .. top + rows + margin of all channels; what is outside is zero, below the
 * last strip too. */
static void copy_strip(const Planes *from, size_t image, size_t height, size_t width, size_t top,
                       size_t rows, size_t margin, size_t stride, real *scratch)
{
    size_t channels = from->channels[0] + from->channels[1];
    for (size_t c = 0; c < channels; c++) {
        const real *plane = plane_of(from, image, c, height * width);
        for (size_t r = 0; r < rows + 2 * margin; r++, scratch += stride) {
            size_t row = top + r - margin; /* wraps around above the image */
            if (row < height) {
                memset(scratch, 0, LANES * sizeof(real));
                memcpy(scratch + LANES, plane + row * width, width * sizeof(real));
                memset(scratch + LANES + width, 0, (stride - LANES - width) * sizeof(real));
            } else {
                memset(scratch, 0, stride * sizeof(real));
            }
        }
    }
}

/* One row of `block` output channels at `vectors` places, over all input channels and taps. */
static ALWAYS_INLINE void sum_up(int block, int vectors, const real *in, size_t plane,
                                 size_t stride, size_t channels, const real *weights,
                                 real *const *out, const size_t *at)
{
    vec sums[BLOCK][VECTORS];
    for (int m = 0; m < block; m++)
        for (int v = 0; v < vectors; v++)
            sums[m][v] = (vec){0};
    for (size_t c = 0; c < channels; c++, in += plane) {
        for (int v = 0; v < vectors; v++) /* what the next row needs */
            __builtin_prefetch(in + 3 * stride + LANES + at[v]);
        for (int ky = 0; ky < 3; ky++)
            for (int kx = 0; kx < 3; kx++, weights += block) {
                const real *row = in + ky * stride + LANES - 1 + kx;
                vec x[VECTORS];
                for (int v = 0; v < vectors; v++)
                    x[v] = load(row + at[v]);
                for (int m = 0; m < block; m++)
                    for (int v = 0; v < vectors; v++)
                        sums[m][v] += weights[m] * x[v];
            }
    }
    for (int m = 0; m < block; m++)
        for (int v = 0; v < vectors; v++)
            store(out[m] + at[v], sums[m][v]);
}

#define CASE(b, v) \
    case b * 8 + v: sum_up(b, v, in, plane, stride, channels, weights, out, at); break;
#if defined(__AVX512F__) || !defined(__x86_64__)
#define CASES(b) CASE(b, 1) CASE(b, 2) CASE(b, 3) CASE(b, 4)
#else
#define CASES(b) CASE(b, 1) CASE(b, 2)
#endif

static void sum_up_any(size_t block, size_t vectors, const real *in, size_t plane, size_t stride,
                       size_t channels, const real *weights, real *const *out, const size_t *at)
{
    switch (block * 8 + vectors) {
        CASES(1) CASES(2) CASES(3) CASES(4) CASES(5) CASES(6)
    }
}

/* Part `number` of `total` things that are split as evenly as can be. */
static size_t first_of(size_t number, size_t parts, size_t total) { return number * total / parts; }

/* Bring weights to the order in which they are used: [output block][input][tap][in block].
 * The adjoint's outputs are the inputs, and its taps are mirrored. */
static void arrange(const real *weights, size_t outputs, size_t inputs, int adjoint, size_t blocks,
                    real *arranged)
{
    for (size_t b = 0; b < blocks; b++) {
        size_t first = first_of(b, blocks, outputs), end = first_of(b + 1, blocks, outputs);
        for (size_t i = 0; i < inputs; i++)
            for (size_t t = 0; t < TAPS; t++)
                for (size_t o = first; o < end; o++)
                    *arranged++ = adjoint ? weights[(i * outputs + o) * TAPS + TAPS - 1 - t]
                                          : weights[(o * inputs + i) * TAPS + t];
    }
}

/* Convolve. `weights` is (outputs, inputs, 3, 3), with `adjoint` (inputs, outputs, 3, 3).
 * Needs width >= LANES. Returns 0, or 1 where memory was refused. */
int FUNCTION(convolve)(const real *in_one, const real *in_two, size_t in_ones, size_t in_twos,
                       const real *weights, int adjoint, real *out_one, real *out_two,
                       size_t out_ones, size_t out_twos, size_t images, size_t height,
                       size_t width, int threads)
{
    const Planes in = {{in_one, in_two}, {in_ones, in_twos}};
    const Planes out = {{out_one, out_two}, {out_ones, out_twos}};
    const size_t inputs = in_ones + in_twos, outputs = out_ones + out_twos;
    const size_t blocks = (outputs + BLOCK - 1) / BLOCK;
    const size_t pieces = (width + LANES - 1) / LANES, tiles = (pieces + VECTORS - 1) / VECTORS;
    const size_t stride = (pieces + 2) * LANES;
    const size_t rows = strip_rows(inputs, stride, height), plane = (rows + 2) * stride;
    const size_t strips = (height + rows - 1) / rows;
    real *arranged = aligned(outputs * inputs * TAPS);
    int failed = !arranged;
    if (arranged)
        arrange(weights, outputs, inputs, adjoint, blocks, arranged);

    #pragma omp parallel num_threads(threads)
    {
        real *scratch = aligned(inputs * plane);
        if (!scratch || !arranged) {
            #pragma omp atomic write
            failed = 1;
        }
        #pragma omp for schedule(dynamic) collapse(2)
        for (size_t image = 0; image < images; image++)
            for (size_t strip = 0; strip < strips; strip++) {
                if (!scratch || !arranged)
                    continue;
                size_t top = strip * rows, here = height - top < rows ? height - top : rows;
                copy_strip(&in, image, height, width, top, rows, 1, stride, scratch);
                const real *block_weights = arranged;
                for (size_t b = 0; b < blocks; b++) {
                    size_t first = first_of(b, blocks, outputs);
                    size_t block = first_of(b + 1, blocks, outputs) - first;
                    for (size_t t = 0; t < tiles; t++) {
                        size_t piece = first_of(t, tiles, pieces), at[VECTORS];
                        size_t vectors = first_of(t + 1, tiles, pieces) - piece;
                        for (size_t v = 0; v < vectors; v++) {
                            at[v] = (piece + v) * LANES;
                            if (at[v] > width - LANES)
                                at[v] = width - LANES; /* the last reaches back */
                        }
                        for (size_t r = 0; r < here; r++) {
                            real *rows_out[BLOCK];
                            for (size_t m = 0; m < block; m++)
                                rows_out[m] =
                                    (real *)plane_of(&out, image, first + m, height * width) +
                                    (top + r) * width;
                            sum_up_any(block, vectors, scratch + r * stride, plane, stride, inputs,
                                       block_weights, rows_out, at);
                        }
                    }
                    block_weights += block * inputs * TAPS;
                }
            }
        free(scratch);
    }
    free(arranged);
    return failed;
}

/* Add to `sums`, lane by lane, what a strip gives to the weights of `block` outputs and one input. */
static ALWAYS_INLINE void correlate(int block, const real *gradient, size_t gradient_plane,
                                    const real *in, size_t stride, size_t rows, size_t pieces,
                                    vec *sums, size_t sums_stride)
{
    vec found[MOST][TAPS];
    for (int m = 0; m < block; m++)
        for (int t = 0; t < TAPS; t++)
            found[m][t] = (vec){0};
    for (size_t r = 0; r < rows; r++)
        for (size_t p = 0; p < pieces; p++) {
            vec g[MOST];
            for (int m = 0; m < block; m++)
                g[m] = load(gradient + m * gradient_plane + r * stride + (p + 1) * LANES);
            for (int ky = 0; ky < 3; ky++)
                for (int kx = 0; kx < 3; kx++) {
                    vec x = load(in + (r + ky) * stride + (p + 1) * LANES + kx - 1);
                    for (int m = 0; m < block; m++)
                        found[m][ky * 3 + kx] += g[m] * x;
                }
        }
    for (int m = 0; m < block; m++)
        for (int t = 0; t < TAPS; t++)
            sums[m * sums_stride + t] += found[m][t];
}

/* The gradient (outputs, inputs, 3, 3) of the weights, given that of the output. */
int FUNCTION(weights_gradient)(const real *in_one, const real *in_two, size_t in_ones,
                               size_t in_twos, const real *gradient, size_t outputs, real *result,
                               size_t images, size_t height, size_t width, int threads)
{
    const Planes in = {{in_one, in_two}, {in_ones, in_twos}};
    const Planes given = {{gradient, 0}, {outputs, 0}};
    const size_t inputs = in_ones + in_twos, count = outputs * inputs * TAPS;
    const size_t blocks = (outputs + GRADIENT_BLOCK - 1) / GRADIENT_BLOCK;
    const size_t pieces = (width + LANES - 1) / LANES, stride = (pieces + 2) * LANES;
    const size_t rows = strip_rows(inputs + outputs, stride, height), plane = (rows + 2) * stride;
    const size_t strips = (height + rows - 1) / rows;
    vec *sums = (vec *)aligned(count * threads * LANES);
    int failed = !sums;
    if (sums)
        memset(sums, 0, count * threads * sizeof(vec));

    #pragma omp parallel num_threads(threads)
    {
        real *scratch = aligned(inputs * plane + outputs * rows * stride);
        real *scratch_given = scratch + inputs * plane;
        vec *own = sums + count * thread_number();
        if (!scratch || !sums) {
            #pragma omp atomic write
            failed = 1;
        }
        /* A static schedule, and each thread's own sums: the same result every time. */
        #pragma omp for schedule(static) collapse(2)
        for (size_t image = 0; image < images; image++)
            for (size_t strip = 0; strip < strips; strip++) {
                if (!scratch || !sums)
                    continue;
                size_t top = strip * rows, here = height - top < rows ? height - top : rows;
                copy_strip(&in, image, height, width, top, rows, 1, stride, scratch);
                copy_strip(&given, image, height, width, top, rows, 0, stride, scratch_given);
                for (size_t b = 0; b < blocks; b++) {
                    size_t first = first_of(b, blocks, outputs);
                    size_t block = first_of(b + 1, blocks, outputs) - first;
                    const real *g = scratch_given + first * rows * stride;
                    for (size_t i = 0; i < inputs; i++) {
                        const real *x = scratch + i * plane;
                        vec *to = own + (first * inputs + i) * TAPS;
                        switch (block) {
                        case 1: correlate(1, g, rows * stride, x, stride, here, pieces, to,
                                          inputs * TAPS); break;
                        case 2: correlate(2, g, rows * stride, x, stride, here, pieces, to,
                                          inputs * TAPS); break;
                        case 3: correlate(3, g, rows * stride, x, stride, here, pieces, to,
                                          inputs * TAPS); break;
                        }
                    }
                }
            }
        free(scratch);
    }
    if (!failed)
        for (size_t i = 0; i < count; i++) {
            double sum = 0;
            for (int t = 0; t < threads; t++)
                for (int lane = 0; lane < LANES; lane++)
                    sum += sums[count * t + i][lane];
            result[i] = sum;
        }
    free(sums);
    return failed;
}
