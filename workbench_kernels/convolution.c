/* 3x3 convolution of images, zero outside, stride 1, and its weights' gradient.
 *
 * An image is (channels, height, width), one row behind the other. A vector is a piece of a row, so
 * that no channel is padded: libraries that vectorise over channels compute 32 where a U-Net has
 * 18.
 *
 * Along the columns it is Winograd's F(4, 3) (Lavin and Gray 2015, arXiv:1509.09308): four rows of
 * the output come from six weighted sums of six rows of the input, each convolved along the row
 * alone: 18 products where 36 would be needed. It multiplies polynomials by their values at
 * 0, 1, -1, 1/2, -2 and infinity; with 1/2 and -2 it rounds less than with the usual 2 and -2
 * (Barabasz et al. 2020, arXiv:1803.10986), and a sum has a third of the terms.
 *
 * Of a strip of rows these sums are formed in a scratch that stays in a core's cache, four rows
 * behind four rows with one zero between them, so that a vector may reach from one into the next:
 * narrow images waste none of it. Then a block of output channels times a few vectors is summed up
 * in registers over all input channels and taps.
 *
 * An input (and, in the adjoint, an output) may lie in two tensors, the first's channels first:
 * what a U-Net concatenates is never copied together.
 */
#include "vectors.h"
#include <unistd.h>

/* As many sums as there are registers for, and a few for what is added: 32, or 16 before AVX-512. */
#if defined(__AVX512F__) || !defined(__x86_64__)
enum { VECTORS = 4, GRADIENT_BLOCK = 8 };
#else
enum { VECTORS = 2, GRADIENT_BLOCK = 3 };
#endif
enum { BLOCK = 6, TAPS = 9, ROWS = 4, FOLDS = 6, GROUPS = 8 };
enum { TERMS = 24 }; /* channels whose products are summed up in one go: few round little */
enum { AHEAD = 6 };  /* channels by which what is needed next is fetched */
enum { SPARE = 16 }; /* one part in so many may be wasted to align the rows */

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

static inline size_t channels_of(const Planes *planes)
{
    return planes->channels[0] + planes->channels[1];
}

/* Part `number` of `total` things that are split as evenly as can be. */
static size_t first_of(size_t number, size_t parts, size_t total) { return number * total / parts; }

/* Bytes of a thread's scratch: half of what a core's own cache holds. */
static size_t budget(void)
{
#ifdef _SC_LEVEL2_CACHE_SIZE /* not every C library can say */
    const long cache = sysconf(_SC_LEVEL2_CACHE_SIZE);
    if (cache > 0)
        return cache / 2;
#endif
    return 1 << 19;
}

/* How images are cut into strips, and how a channel of a strip lies in the scratch: a vector, of
 * which the last number is zero; group of four rows behind group, a zero or more after each; a
 * vector of zeros. */
typedef struct {
    size_t height, width;
    size_t groups; /* of rows in a strip */
    size_t strips; /* of an image */
    size_t pitch;  /* from one group to the next */
    size_t pieces; /* vectors that hold all groups of a strip */
    size_t stride; /* from one channel to the next: an odd number of vectors, which cache well */
} Cut;

static Cut cut(size_t channels, size_t height, size_t width, int threads)
{
    Cut c = {.height = height, .width = width, .pitch = width + 1};
    const size_t whole = (c.pitch + LANES - 1) / LANES * LANES;
    if ((whole - c.pitch) * SPARE <= c.pitch) /* aligned rows are worth a few numbers */
        c.pitch = whole;
    const size_t all = (height + ROWS - 1) / ROWS, share = (all + threads - 1) / threads;
    c.groups = budget() / (channels * FOLDS * c.pitch * sizeof(real));
    if (c.groups > GROUPS)
        c.groups = GROUPS;
    if (c.groups > share)
        c.groups = share;
    if (!c.groups)
        c.groups = 1;
    c.strips = (all + c.groups - 1) / c.groups;
    c.strips = (c.strips + threads - 1) / threads * threads; /* as many for each thread */
    c.groups = (all + c.strips - 1) / c.strips;
    c.strips = (all + c.groups - 1) / c.groups;
    c.pieces = (c.groups * c.pitch + LANES - 1) / LANES;
    c.stride = ((c.pieces + 2) | 1) * LANES;
    return c;
}

/* Row `row` of a plane, zeros outside; above the image it has wrapped around. */
static inline const real *row_of(const real *plane, const Cut *c, size_t row, const real *zeros)
{
    return row < c->height ? plane + row * c->width : zeros;
}

/* A vector of a row, of which `left` numbers are left: zeros after them. */
static ALWAYS_INLINE vec some(const real *at, size_t left)
{
    vec found = {0};
    if (left >= LANES)
        return load(at);
    memcpy(&found, at, left * sizeof(real));
    return found;
}

/* Six rows of an image, folded. */
static ALWAYS_INLINE void fold(const vec d[FOLDS], vec to[FOLDS])
{
    const vec outer = d[4] - d[2], inner = d[3] - d[1];
    to[0] = (d[0] - d[2]) + outer + inner * (real)1.5;
    to[1] = (d[4] - d[1]) + d[2] * (real)0.5 + d[3] * (real)2.5;
    to[2] = (d[4] + d[1]) - d[2] * (real)2.5 + d[3] * (real)0.5;
    to[3] = outer + inner * (real)2;
    to[4] = outer - inner * (real)0.5;
    to[5] = (d[5] - d[3]) - inner + outer * (real)1.5;
}

/* Four rows of the output, of what the folds' convolutions give. */
static ALWAYS_INLINE void unfold(const vec p[FOLDS], vec to[ROWS])
{
    const vec sum = p[1] + p[2], difference = p[1] - p[2];
    to[0] = (p[0] + sum) + (p[3] + p[4]);
    to[1] = difference + (p[3] * (real)0.5 - p[4] * (real)2);
    to[2] = sum + (p[3] * (real)0.25 + p[4] * (real)4);
    to[3] = difference + (p[3] * (real)0.125 - p[4] * (real)8) + p[5];
}

/* Four rows of a gradient, folded: the adjoint of `unfold`. */
static ALWAYS_INLINE void fold_gradient(const vec e[ROWS], vec to[FOLDS])
{
    const vec even = e[0] + e[2], odd = e[1] + e[3];
    to[0] = e[0];
    to[1] = even + odd;
    to[2] = even - odd;
    to[3] = (e[0] + e[1] * (real)0.5) + (e[2] * (real)0.25 + e[3] * (real)0.125);
    to[4] = (e[0] - e[1] * (real)2) + (e[2] * (real)4 - e[3] * (real)8);
    to[5] = e[3];
}

/* A column of three weights, folded. */
static ALWAYS_INLINE void fold_weights(double w0, double w1, double w2, double to[FOLDS])
{
    const double outer = (w0 + w2) * (1.0 / 3), middle = w1 * (1.0 / 3);
    to[0] = w0;
    to[1] = middle + outer;
    to[2] = middle - outer;
    to[3] = w0 * (-16.0 / 15) - w1 * (8.0 / 15) - w2 * (4.0 / 15);
    to[4] = w0 * (1.0 / 15) - w1 * (2.0 / 15) + w2 * (4.0 / 15);
    to[5] = w2;
}

/* The gradient of a column of three weights, three numbers apart, of those of its folds. */
static inline void unfold_weights(const double g[FOLDS], real *to)
{
    to[0] = g[0] + (g[1] - g[2]) / 3 + (g[4] - 16 * g[3]) / 15;
    to[3] = (g[1] + g[2]) / 3 - (8 * g[3] + 2 * g[4]) / 15;
    to[6] = (g[1] - g[2]) / 3 + 4 * (g[4] - g[3]) / 15 + g[5];
}

/* Fold the rows of one channel of a strip of images, each fold `apart` from the one before; or with
 * `adjoint` those of a gradient, by the adjoint of how two rows are put together. */
static ALWAYS_INLINE void fold_channel(int adjoint, const real *plane, const Cut *c, size_t strip,
                                       const real *zeros, real *channel, size_t apart)
{
    const size_t width = c->width;
    for (size_t group = 0; group < c->groups; group++) {
        const size_t row = ROWS * (strip * c->groups + group);
        const real *rows[FOLDS];
        for (size_t r = 0; r < FOLDS; r++) /* a gradient's own four, of an image one more around */
            rows[r] = row_of(plane, c, row + r - !adjoint, zeros);
        real *const begin = channel + LANES + group * c->pitch, *to = begin;
        /* What the last vector writes behind the row is overwritten. */
        for (size_t x = 0; x < width; x += LANES, to += LANES) {
            vec d[FOLDS], folded[FOLDS];
            for (size_t r = 0; r < (adjoint ? ROWS : FOLDS); r++)
                d[r] = some(rows[r] + x, width - x);
            (adjoint ? fold_gradient : fold)(d, folded);
            for (size_t f = 0; f < FOLDS; f++)
                store(to + f * apart, folded[f]);
        }
        for (size_t f = 0; f < FOLDS; f++)
            memset(begin + f * apart + width, 0, (c->pitch - width) * sizeof(real));
    }
    const size_t end = LANES + c->groups * c->pitch;
    for (size_t f = 0; f < FOLDS; f++, channel += apart) {
        memset(channel, 0, LANES * sizeof(real));
        memset(channel + end, 0, (c->stride - end) * sizeof(real));
    }
}

/* Fold all channels of a strip: (FOLDS, channels, stride). */
static void fold_strip(int adjoint, const Planes *from, size_t image, const Cut *c, size_t strip,
                       const real *zeros, real *scratch)
{
    const size_t channels = channels_of(from), apart = channels * c->stride;
    for (size_t channel = 0; channel < channels; channel++) {
        const real *plane = plane_of(from, image, channel, c->height * c->width);
        real *to = scratch + channel * c->stride;
        if (adjoint)
            fold_channel(1, plane, c, strip, zeros, to, apart);
        else
            fold_channel(0, plane, c, strip, zeros, to, apart);
    }
}

/* Four rows of `block` output channels at `vectors` places, over all input channels and taps. */
static ALWAYS_INLINE void sum_up(int block, int vectors, const real *in, size_t stride,
                                 size_t channels, const real *weights, vec rows[ROWS][BLOCK][VECTORS])
{
    vec products[FOLDS][BLOCK][VECTORS];
    for (int f = 0; f < FOLDS; f++)
        for (size_t from = 0; from < channels; from += TERMS) {
            const size_t end = channels - from < TERMS ? channels : from + TERMS;
            vec sums[BLOCK][VECTORS];
            for (int m = 0; m < block; m++)
                for (int v = 0; v < vectors; v++)
                    sums[m][v] = (vec){0};
            for (size_t c = from; c < end; c++, in += stride) {
                for (int v = 0; v < vectors; v++)
                    __builtin_prefetch(in + AHEAD * stride + v * LANES);
                for (int kx = 0; kx < 3; kx++, weights += block) {
                    vec x[VECTORS];
                    for (int v = 0; v < vectors; v++)
                        x[v] = load(in + kx - 1 + v * LANES);
                    for (int m = 0; m < block; m++)
                        for (int v = 0; v < vectors; v++)
                            sums[m][v] += weights[m] * x[v];
                }
            }
            for (int m = 0; m < block; m++)
                for (int v = 0; v < vectors; v++)
                    products[f][m][v] = from ? products[f][m][v] + sums[m][v] : sums[m][v];
        }
    for (int m = 0; m < block; m++)
        for (int v = 0; v < vectors; v++) {
            vec of_place[FOLDS], result[ROWS];
            for (int f = 0; f < FOLDS; f++)
                of_place[f] = products[f][m][v];
            unfold(of_place, result);
            for (int r = 0; r < ROWS; r++)
                rows[r][m][v] = result[r];
        }
}

#define CASE(b, v) \
    case b * 8 + v: sum_up(b, v, in, stride, channels, weights, rows); break;
#if defined(__AVX512F__) || !defined(__x86_64__)
#define CASES(b) CASE(b, 1) CASE(b, 2) CASE(b, 3) CASE(b, 4)
#else
#define CASES(b) CASE(b, 1) CASE(b, 2)
#endif

static void sum_up_any(size_t block, size_t vectors, const real *in, size_t stride,
                       size_t channels, const real *weights, vec rows[ROWS][BLOCK][VECTORS])
{
    switch (block * 8 + vectors) {
        CASES(1) CASES(2) CASES(3) CASES(4) CASES(5) CASES(6)
    }
}

/* Spread a vector of four rows of `block` planes, which begins `at` numbers into a strip. */
static void spread(real *const *planes, size_t block, const Cut *c, size_t strip, size_t at,
                  size_t v, const vec rows[ROWS][BLOCK][VECTORS])
{
    for (size_t lane = 0; lane < LANES;) {
        const size_t group = (at + lane) / c->pitch, x = (at + lane) % c->pitch;
        const size_t row = ROWS * (strip * c->groups + group), here = c->pitch - x;
        size_t count = x < c->width ? c->width - x : 0;
        if (count > LANES - lane)
            count = LANES - lane;
        if (count && group < c->groups)
            for (size_t r = 0; r < ROWS && row + r < c->height; r++)
                for (size_t m = 0; m < block; m++) {
                    real *to = planes[m] + (row + r) * c->width + x;
                    if (count == LANES)
                        stream(to, rows[r][m][v]);
                    else
                        memcpy(to, (const real *)&rows[r][m][v] + lane, count * sizeof(real));
                }
        lane += here;
    }
}

/* Fold the weights of an output block, in the order in which they are used: [fold][input][tap][in
 * block]. The adjoint's outputs are the inputs, and its taps are mirrored. */
static void arrange(const real *weights, size_t outputs, size_t inputs, int adjoint, size_t first,
                    size_t end, real *arranged)
{
    const size_t apart = inputs * 3 * (end - first);
    for (size_t i = 0; i < inputs; i++)
        for (size_t kx = 0; kx < 3; kx++)
            for (size_t o = first; o < end; o++, arranged++) {
                const real *at = weights + (adjoint ? i * outputs + o : o * inputs + i) * TAPS;
                double folded[FOLDS];
                fold_weights(at[adjoint ? 8 - kx : kx], at[adjoint ? 5 - kx : 3 + kx],
                             at[adjoint ? 2 - kx : 6 + kx], folded);
                for (size_t f = 0; f < FOLDS; f++)
                    arranged[f * apart] = folded[f];
            }
}

/* Convolve. `weights` is (outputs, inputs, 3, 3), with `adjoint` (inputs, outputs, 3, 3).
 * Returns 0, or 1 where memory was refused. */
int FUNCTION(convolve)(const real *in_one, const real *in_two, size_t in_ones, size_t in_twos,
                       const real *weights, int adjoint, real *out_one, real *out_two,
                       size_t out_ones, size_t out_twos, size_t images, size_t height,
                       size_t width, int threads)
{
    const Planes in = {{in_one, in_two}, {in_ones, in_twos}};
    const Planes out = {{out_one, out_two}, {out_ones, out_twos}};
    const size_t inputs = channels_of(&in), outputs = channels_of(&out);
    const size_t blocks = (outputs + BLOCK - 1) / BLOCK;
    const Cut c = cut(inputs, height, width, threads);
    const size_t tiles = (c.pieces + VECTORS - 1) / VECTORS;
    real *arranged = aligned(outputs * inputs * 3 * FOLDS), *zeros = aligned(width);
    int failed = !arranged || !zeros;
    if (zeros)
        memset(zeros, 0, width * sizeof(real));

    #pragma omp parallel num_threads(threads)
    {
        real *scratch = aligned(inputs * FOLDS * c.stride);
        if (!scratch) {
            #pragma omp atomic write
            failed = 1;
        }
        #pragma omp for schedule(static)
        for (size_t b = 0; b < blocks; b++) {
            size_t first = first_of(b, blocks, outputs), end = first_of(b + 1, blocks, outputs);
            if (arranged)
                arrange(weights, outputs, inputs, adjoint, first, end,
                        arranged + first * inputs * 3 * FOLDS);
        }
        #pragma omp for schedule(dynamic) collapse(2)
        for (size_t image = 0; image < images; image++)
            for (size_t strip = 0; strip < c.strips; strip++) {
                if (!scratch || !arranged || !zeros)
                    continue;
                fold_strip(0, &in, image, &c, strip, zeros, scratch);
                for (size_t b = 0; b < blocks; b++) {
                    const size_t first = first_of(b, blocks, outputs);
                    const size_t block = first_of(b + 1, blocks, outputs) - first;
                    real *planes[BLOCK];
                    for (size_t m = 0; m < block; m++)
                        planes[m] = (real *)plane_of(&out, image, first + m, height * width);
                    for (size_t t = 0; t < tiles; t++) {
                        const size_t piece = first_of(t, tiles, c.pieces);
                        const size_t vectors = first_of(t + 1, tiles, c.pieces) - piece;
                        vec rows[ROWS][BLOCK][VECTORS];
                        sum_up_any(block, vectors, scratch + (piece + 1) * LANES, c.stride, inputs,
                                   arranged + first * inputs * 3 * FOLDS, rows);
                        for (size_t v = 0; v < vectors; v++)
                            spread(planes, block, &c, strip, (piece + v) * LANES, v, rows);
                    }
                }
            }
        free(scratch);
        streamed();
    }
    free(zeros);
    free(arranged);
    return failed;
}

/* Add to `sums`, lane by lane, what a strip gives to the weights of `block` outputs and one input. */
static ALWAYS_INLINE void correlate(int block, const real *gradient, const real *in, size_t stride,
                                    size_t pieces, vec *sums, size_t sums_stride)
{
    vec found[GRADIENT_BLOCK][3];
    for (int m = 0; m < block; m++)
        for (int t = 0; t < 3; t++)
            found[m][t] = (vec){0};
    for (size_t p = 0; p < pieces; p++, gradient += LANES, in += LANES) {
        const vec x[3] = {load(in - 1), load(in), load(in + 1)};
        for (int m = 0; m < block; m++) {
            const vec g = load(gradient + m * stride);
            for (int t = 0; t < 3; t++)
                found[m][t] += g * x[t];
        }
    }
    for (int m = 0; m < block; m++)
        for (int t = 0; t < 3; t++)
            sums[m * sums_stride + t] += found[m][t];
}

#define GRADIENT_CASE(b) \
    case b: correlate(b, gradient, in, stride, pieces, sums, sums_stride); break;

static void correlate_any(size_t block, const real *gradient, const real *in, size_t stride,
                          size_t pieces, vec *sums, size_t sums_stride)
{
    switch (block) {
        GRADIENT_CASE(1) GRADIENT_CASE(2) GRADIENT_CASE(3)
#if defined(__AVX512F__) || !defined(__x86_64__)
        GRADIENT_CASE(4) GRADIENT_CASE(5) GRADIENT_CASE(6) GRADIENT_CASE(7) GRADIENT_CASE(8)
#endif
    }
}

/* The gradient (outputs, inputs, 3, 3) of the weights, given that of the output. */
int FUNCTION(weights_gradient)(const real *in_one, const real *in_two, size_t in_ones,
                               size_t in_twos, const real *gradient, size_t outputs, real *result,
                               size_t images, size_t height, size_t width, int threads)
{
    const Planes in = {{in_one, in_two}, {in_ones, in_twos}};
    const Planes given = {{gradient, 0}, {outputs, 0}};
    const size_t inputs = channels_of(&in), count = FOLDS * outputs * inputs * 3;
    const size_t blocks = (outputs + GRADIENT_BLOCK - 1) / GRADIENT_BLOCK;
    const Cut c = cut(inputs + outputs, height, width, threads);
    vec *sums = (vec *)aligned(count * threads * LANES);
    real *zeros = aligned(width);
    int failed = !sums || !zeros;
    if (sums)
        memset(sums, 0, count * threads * sizeof(vec));
    if (zeros)
        memset(zeros, 0, width * sizeof(real));

    #pragma omp parallel num_threads(threads)
    {
        real *scratch = aligned((inputs + outputs) * FOLDS * c.stride);
        real *folded = scratch + inputs * FOLDS * c.stride;
        vec *own = sums + count * thread_number();
        if (!scratch) {
            #pragma omp atomic write
            failed = 1;
        }
        /* A static schedule, and each thread's own sums: the same result every time. */
        #pragma omp for schedule(static) collapse(2)
        for (size_t image = 0; image < images; image++)
            for (size_t strip = 0; strip < c.strips; strip++) {
                if (!scratch || !sums || !zeros)
                    continue;
                fold_strip(0, &in, image, &c, strip, zeros, scratch);
                fold_strip(1, &given, image, &c, strip, zeros, folded);
                for (size_t f = 0; f < FOLDS; f++)
                    for (size_t b = 0; b < blocks; b++) {
                        size_t first = first_of(b, blocks, outputs);
                        size_t block = first_of(b + 1, blocks, outputs) - first;
                        for (size_t i = 0; i < inputs; i++)
                            correlate_any(block, folded + (f * outputs + first) * c.stride + LANES,
                                          scratch + (f * inputs + i) * c.stride + LANES, c.stride, c.pieces,
                                          own + ((f * outputs + first) * inputs + i) * 3,
                                          inputs * 3);
                    }
            }
        free(scratch);
    }
    if (!failed)
        for (size_t i = 0; i < outputs * inputs; i++)
            for (size_t kx = 0; kx < 3; kx++) {
                double folds[FOLDS] = {0};
                for (size_t f = 0; f < FOLDS; f++)
                    for (int t = 0; t < threads; t++)
                        for (int lane = 0; lane < LANES; lane++)
                            folds[f] += sums[count * t + (f * outputs * inputs + i) * 3 + kx][lane];
                real *to = result + i * TAPS + kx;
                unfold_weights(folds, to);
            }
    free(zeros);
    free(sums);
    return failed;
}

/* Fold `groups` groups of four rows of all channels of one image, for products of matrices that
 * others multiply better: (FOLDS, channels, stride), of which a channel's first LANES numbers are
 * zero, and at least LANES behind the groups. The pitch is width + 1. Returns 1 where memory was
 * refused. */
int FUNCTION(fold_rows)(const real *in_one, const real *in_two, size_t in_ones, size_t in_twos,
                        int adjoint, real *out, size_t stride, size_t groups, size_t strip,
                        size_t image, size_t height, size_t width, int threads)
{
    const Planes in = {{in_one, in_two}, {in_ones, in_twos}};
    const Cut c = {height, width, .groups = groups, .pitch = width + 1, .stride = stride};
    const size_t channels = channels_of(&in), apart = channels * stride;
    real *zeros = aligned(width);
    if (!zeros)
        return 1;
    memset(zeros, 0, width * sizeof(real));
    #pragma omp parallel for schedule(static) num_threads(threads)
    for (size_t channel = 0; channel < channels; channel++)
        fold_channel(adjoint, plane_of(&in, image, channel, height * width), &c, strip, zeros,
                     out + channel * stride, apart);
    free(zeros);
    return 0;
}

/* The gradients of `count` columns of weights, (count / 3, 3, 3), of those of their folds. */
void FUNCTION(unfold_weights)(const real *folds, real *result, size_t count, int threads)
{
    #pragma omp parallel for schedule(static) num_threads(threads)
    for (size_t i = 0; i < count; i++) {
        double own[FOLDS];
        for (size_t f = 0; f < FOLDS; f++)
            own[f] = folds[f * count + i];
        unfold_weights(own, result + i / 3 * TAPS + i % 3);
    }
}
