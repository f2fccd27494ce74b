/* The same 3x3 convolution with products in bfloat16 and sums in float32, on processors with AMX.
 *
 * AMX multiplies a tile of 16 outputs' weights for 32 channels and taps by a tile of these at 16
 * pixels, sixteen times as fast as vectors of float32 do. Channels go in pairs: a word of an image's
 * tile holds a pixel of two channels, so that a row of it is a piece of a row of the image. Of a
 * strip of rows these words are formed in a scratch that stays in a core's cache, all pairs of one
 * row behind those of the row above: three rows' pairs are one matrix, and a tap to the left or the
 * right is the same matrix one pixel further on. Four tiles of sums, of two pieces of rows and two
 * blocks of output channels, are summed up at a time.
 */
#include "vectors.h"

#define OF_float 1
#if NAMED(OF, REAL) && defined(__AMX_BF16__) && defined(__AVX512BF16__) && defined(__linux__)
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SIDE = 16, PAIRS = SIDE, PERMISSION = 0x1023, TILE_DATA = 18 }; /* of Linux's arch_prctl */
enum { MOST_ROWS = 32 }; /* of a strip */

/* Whether this process may use tiles. */
int FUNCTION(tiles)(void) { return !syscall(SYS_arch_prctl, PERMISSION, TILE_DATA); }

/* How a convolution is cut into tiles. */
typedef struct {
    size_t pairs;   /* of input channels */
    size_t steps;   /* tiles that hold the pairs of three rows, and one that `depth` rows fill */
    size_t depth;
    size_t outputs; /* of a tile, and blocks of two tiles that hold all of them */
    size_t blocks;
    size_t pitch;   /* words from one pair's row to the next: a piece of zeros, the row, zeros */
    size_t pieces;  /* of a row */
    size_t rows, strips;
} Tiling;

/* How many rows a strip has of which the scratch may hold `most`, one more on either side included:
 * as many strips for each thread. */
static size_t rows_of_strip(size_t most, size_t height, int threads)
{
    const size_t held = most < MOST_ROWS + 2 ? most : MOST_ROWS + 2, rows = held > 4 ? held - 2 : 2;
    const size_t each = ((height + rows - 1) / rows + threads - 1) / threads;
    return (height + each * threads - 1) / (each * threads);
}

static Tiling tiling(size_t inputs, size_t outputs, size_t height, size_t width, int threads)
{
    Tiling t = {.pairs = (inputs + 1) / 2, .blocks = (outputs + 2 * SIDE - 1) / (2 * SIDE)};
    t.steps = (3 * t.pairs + PAIRS - 1) / PAIRS;
    t.depth = (3 * t.pairs + t.steps - 1) / t.steps;
    t.outputs = (outputs + 2 * t.blocks - 1) / (2 * t.blocks);
    t.pieces = (width + SIDE - 1) / SIDE;
    t.pitch = (t.pieces + 2) * SIDE;
    t.rows = rows_of_strip(budget() / (t.pairs * t.pitch * sizeof(uint32_t)), height, threads);
    t.strips = (height + t.rows - 1) / t.rows;
    return t;
}

/* The first row of the matrix that a step multiplies; the last step's begins a little earlier, and
 * its weights are zero for what the step before has multiplied. */
static size_t first_row(const Tiling *t, size_t step)
{
    const size_t at = step * t->depth, last = 3 * t->pairs - t->depth;
    return at < last ? at : last;
}

/* Set this thread's registers: from the first on some hold sums, then some hold `outputs` rows of
 * `depth` words, and the rest `depth` rows of what these are multiplied by. */
static void set_registers(size_t outputs, size_t depth, int sums, int left)
{
    struct {
        uint8_t palette, start, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } shapes = {.palette = 1};
    for (int r = 0; r < 8; r++) {
        shapes.bytes[r] = sizeof(uint32_t) * (r >= sums && r < sums + left ? depth : SIDE);
        shapes.rows[r] = r < sums + left ? outputs : depth;
    }
    _tile_loadconfig(&shapes);
}

/* Arrange the weights of a block: [step][tap of the row][tile][output][pair][in pair]. */
static void arrange_tiles(const Tiling *t, const real *weights, size_t outputs, size_t inputs,
                          int adjoint, size_t block, uint16_t *to)
{
    const size_t of_output = TAPS * (adjoint ? 1 : inputs), of_input = TAPS * (adjoint ? outputs : 1);
    for (size_t step = 0; step < t->steps; step++) {
        int32_t from[2 * PAIRS] = {0}; /* where the weights of an output lie */
        __mmask32 some = 0;
        for (size_t k = 0; k < 2 * t->depth; k++) {
            const size_t row = first_row(t, step) + k / 2, ky = row / t->pairs;
            const size_t i = row % t->pairs * 2 + k % 2;
            if (i >= inputs || row < step * t->depth)
                continue;
            some |= (__mmask32)1 << k;
            from[k] = i * of_input + (adjoint ? 8 - 3 * ky : 3 * ky);
        }
        const __m512i near = _mm512_loadu_si512(from), far = _mm512_loadu_si512(from + SIDE);
        for (size_t kx = 0; kx < 3; kx++)
            for (size_t o = block * 2 * t->outputs; o < (block + 1) * 2 * t->outputs; o++) {
                const __mmask32 are = o < outputs ? some : 0;
                const real *at = weights + o * of_output;
                at = adjoint ? at - kx : at + kx;
                const __m512 none = _mm512_setzero_ps();
                const __m512 a = _mm512_mask_i32gather_ps(none, are, near, at, sizeof(real));
                const __m512 b = _mm512_mask_i32gather_ps(none, are >> SIDE, far, at, sizeof(real));
                _mm512_mask_storeu_epi16(to, ((uint64_t)1 << 2 * t->depth) - 1,
                                         (__m512i)_mm512_cvtne2ps_pbh(b, a));
                to += 2 * t->depth;
            }
    }
}

/* Round a row of two channels, each of which may be missing, to words between zeros. */
static void pair_up(const real *one, const real *two, size_t width, const Tiling *t, uint32_t *to)
{
    static const uint16_t woven[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                       8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    const __m512i order = _mm512_loadu_si512(woven), zeros = _mm512_setzero_si512();
    _mm512_store_si512(to, zeros);
    _mm512_store_si512(to + t->pitch - SIDE, zeros);
    for (size_t x = 0; x < width; x += SIDE) {
        const __mmask16 some = width - x < SIDE ? (1 << (width - x)) - 1 : 0xffff;
        const __m512 a = one ? _mm512_maskz_loadu_ps(some, one + x) : (__m512)zeros;
        const __m512 b = two ? _mm512_maskz_loadu_ps(some, two + x) : (__m512)zeros;
        const __m512i both = (__m512i)_mm512_cvtne2ps_pbh(b, a);
        _mm512_store_si512(to + SIDE + x, _mm512_permutexvar_epi16(order, both));
    }
}

/* Sum up two tiles of outputs at two pieces of rows: (2 outputs, 2 SIDE). */
static void multiply_tiles(const Tiling *t, const uint16_t *weights, const uint32_t *one,
                           const uint32_t *two, real *sums)
{
    const size_t of_tile = t->outputs * t->depth * 2, row = t->depth * sizeof(uint32_t);
    const size_t stride = t->pitch * sizeof(uint32_t), wide = 2 * SIDE * sizeof(real);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (size_t step = 0; step < t->steps; step++)
        for (size_t kx = 0; kx < 3; kx++, weights += 2 * of_tile) {
            const size_t at = first_row(t, step) * t->pitch + kx;
            _tile_loadd(4, weights, row);
            _tile_loadd(6, one + at, stride);
            _tile_loadd(5, weights + of_tile, row);
            _tile_loadd(7, two + at, stride);
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 4, 7);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
    _tile_stored(0, sums, wide);
    _tile_stored(1, sums + SIDE, wide);
    _tile_stored(2, sums + t->outputs * 2 * SIDE, wide);
    _tile_stored(3, sums + t->outputs * 2 * SIDE + SIDE, wide);
}

/* Convolve as `convolve` does. */
int FUNCTION(convolve_tiles)(const real *in_one, const real *in_two, size_t in_ones, size_t in_twos,
                             const real *weights, int adjoint, real *out_one, real *out_two,
                             size_t out_ones, size_t out_twos, size_t images, size_t height,
                             size_t width, int threads)
{
    const Planes in = {{in_one, in_two}, {in_ones, in_twos}};
    const Planes out = {{out_one, out_two}, {out_ones, out_twos}};
    const size_t inputs = channels_of(&in), outputs = channels_of(&out), size = height * width;
    const Tiling t = tiling(inputs, outputs, height, width, threads);
    const size_t of_block = t.steps * 3 * 2 * t.outputs * t.depth * 2;
    const size_t of_row = t.pairs * t.pitch, words = (t.rows + 2) * of_row;
    uint16_t *arranged = (uint16_t *)aligned(t.blocks * of_block / 2);
    int failed = !arranged;

    #pragma omp parallel num_threads(threads)
    {
        uint32_t *scratch = (uint32_t *)aligned(words);
        real sums[2 * SIDE * 2 * SIDE] __attribute__((aligned(BYTES)));
        if (!scratch) {
            #pragma omp atomic write
            failed = 1;
        }
        set_registers(t.outputs, t.depth, 4, 2);
        #pragma omp for schedule(static)
        for (size_t b = 0; b < t.blocks; b++)
            if (arranged)
                arrange_tiles(&t, weights, outputs, inputs, adjoint, b, arranged + b * of_block);
        #pragma omp for schedule(dynamic) collapse(2)
        for (size_t image = 0; image < images; image++)
            for (size_t strip = 0; strip < t.strips; strip++) {
                if (!scratch || !arranged)
                    continue;
                const size_t top = strip * t.rows, left = height - top;
                const size_t rows = left < t.rows ? left : t.rows, tiles = rows * t.pieces;
                for (size_t r = 0; r < rows + 2; r++)
                    for (size_t i = 0; i < inputs; i += 2) {
                        const size_t row = top + r - 1; /* above the image it has wrapped around */
                        const real *pair[2] = {0, 0};
                        for (size_t one = 0; one < 2 && row < height && i + one < inputs; one++)
                            pair[one] = plane_of(&in, image, i + one, size) + row * width;
                        pair_up(pair[0], pair[1], width, &t, scratch + r * of_row + i / 2 * t.pitch);
                    }
                for (size_t b = 0; b < t.blocks; b++)
                    for (size_t tile = 0; tile < tiles; tile += 2) {
                        size_t row[2], x[2];
                        const uint32_t *at[2];
                        for (size_t one = 0; one < 2; one++) { /* an odd last tile goes twice */
                            const size_t of = tile + one < tiles ? tile + one : tile;
                            row[one] = of / t.pieces;
                            x[one] = of % t.pieces * SIDE;
                            at[one] = scratch + row[one] * of_row + SIDE - 1 + x[one];
                        }
                        multiply_tiles(&t, arranged + b * of_block, at[0], at[1], sums);
                        for (size_t m = 0; m < 2 * t.outputs; m++) {
                            const size_t o = b * 2 * t.outputs + m;
                            if (o >= outputs)
                                break;
                            real *plane = (real *)plane_of(&out, image, o, size) + top * width;
                            for (size_t one = 0; one < 2; one++) {
                                const vec found = load(sums + m * 2 * SIDE + one * SIDE);
                                const size_t here = width - x[one];
                                real *to = plane + row[one] * width + x[one];
                                if (here < SIDE)
                                    memcpy(to, &found, here * sizeof(real));
                                else
                                    stream(to, found);
                            }
                        }
                    }
            }
        _tile_release();
        free(scratch);
        streamed();
    }
    free(arranged);
    return failed;
}

/* How the sum over pixels is cut into tiles, for the weights' gradient. A tile of the gradient is
 * that of some outputs at 32 pixels of a row, a tile of the image is 16 channels at these pixels, in
 * words of two neighbours. */
typedef struct {
    size_t outputs, pairs; /* of a tile, and pairs of tiles that hold all of them */
    size_t inputs;         /* tiles that hold all of them */
    size_t pieces;         /* of 32 pixels of a row */
    size_t rows, strips;
} Correlation;

static Correlation correlation(size_t inputs, size_t outputs, size_t height, size_t width, int threads)
{
    Correlation c = {.pairs = (outputs + 2 * SIDE - 1) / (2 * SIDE)};
    c.outputs = (outputs + 2 * c.pairs - 1) / (2 * c.pairs);
    c.inputs = (inputs + SIDE - 1) / SIDE;
    c.pieces = (width + 2 * SIDE - 1) / (2 * SIDE);
    const size_t of_row = c.pieces * 64 * (c.inputs * SIDE + 3 * 2 * c.pairs * c.outputs);
    c.rows = rows_of_strip(budget() / of_row, height, threads);
    c.strips = (height + c.rows - 1) / c.rows;
    return c;
}

/* Turn 16 vectors of 16 words so that the words of one place are neighbours. */
static ALWAYS_INLINE void turn(__m512i r[SIDE])
{
    __m512i t[SIDE];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; i++)
        for (int far = 0; far < 16; far += 8) {
            t[far + i] = _mm512_shuffle_i32x4(r[far + i], r[far + i + 4], 0x88);
            t[far + i + 4] = _mm512_shuffle_i32x4(r[far + i], r[far + i + 4], 0xdd);
        }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
        r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
        r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
    }
}

/* 32 pixels of a row from `x` on, rounded; zeros outside of the row. */
static ALWAYS_INLINE __m512i pixels(const real *row, ptrdiff_t x, size_t width)
{
    __m512 part[2];
    for (int half = 0; half < 2; half++, x += SIDE) {
        const ptrdiff_t left = (ptrdiff_t)width - x;
        __mmask16 some = left >= SIDE ? 0xffff : left > 0 ? (1 << left) - 1 : 0;
        if (x < 0)
            some &= 0xffff << -x;
        part[half] = _mm512_maskz_loadu_ps(some, row + x);
    }
    return (__m512i)_mm512_cvtne2ps_pbh(part[1], part[0]);
}

/* Add to `sums` what a strip gives to the weights of two tiles of outputs and one of inputs, in one
 * row of taps: (3, 2) tiles. */
static void correlate_tiles(const Correlation *c, size_t rows, const uint32_t *gradient,
                            size_t gradient_row, size_t planes, const uint32_t *in, size_t in_row,
                            real *sums)
{
    const size_t wide = c->pieces * SIDE, row = wide * sizeof(uint32_t);
    const size_t across = c->inputs * SIDE, of_tile = SIDE * SIDE;
    const size_t other = c->outputs * wide, tap = planes * wide;
#define EACH(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5)
#define FETCH(n) _tile_loadd(n, sums + n * of_tile, SIDE * sizeof(real));
#define KEEP(n) _tile_stored(n, sums + n * of_tile, SIDE * sizeof(real));
#define MULTIPLY(n)                                                                                \
    _tile_loadd(6, gradient + r * gradient_row + n / 2 * tap + n % 2 * other + p * SIDE, row);     \
    _tile_dpbf16ps(n, 6, 7);
    EACH(FETCH)
    for (size_t r = 0; r < rows; r++)
        for (size_t p = 0; p < c->pieces; p++) {
            _tile_loadd(7, in + r * in_row + p * SIDE * across, across * sizeof(uint32_t));
            EACH(MULTIPLY)
        }
    EACH(KEEP)
}

/* The weights' gradient as `weights_gradient` forms it. */
int FUNCTION(weights_gradient_tiles)(const real *in_one, const real *in_two, size_t in_ones,
                                     size_t in_twos, const real *gradient, size_t outputs,
                                     real *result, size_t images, size_t height, size_t width,
                                     int threads)
{
    const Planes in = {{in_one, in_two}, {in_ones, in_twos}};
    const size_t inputs = channels_of(&in), size = height * width;
    const Correlation c = correlation(inputs, outputs, height, width, threads);
    const size_t of_tile = SIDE * SIDE, count = c.pairs * c.inputs * TAPS * 2 * of_tile;
    const size_t in_row = c.pieces * SIDE * c.inputs * SIDE; /* words: [pair of pixels][channel] */
    const size_t planes = 2 * c.pairs * c.outputs, wide = c.pieces * SIDE;
    const size_t given_row = 3 * planes * wide; /* words: [tap][output][pair of pixels] */
    real *sums = aligned(count * threads);
    int failed = !sums;
    if (sums)
        memset(sums, 0, count * threads * sizeof(real));

    #pragma omp parallel num_threads(threads)
    {
        uint32_t *scratch = (uint32_t *)aligned((c.rows + 2) * in_row + c.rows * given_row);
        uint32_t *given = scratch + (c.rows + 2) * in_row;
        if (!scratch) {
            #pragma omp atomic write
            failed = 1;
        }
        real *own = sums + count * thread_number();
        set_registers(c.outputs, SIDE, 6, 1);
        #pragma omp for schedule(static) collapse(2)
        for (size_t image = 0; image < images; image++)
            for (size_t strip = 0; strip < c.strips; strip++) {
                if (!scratch || !sums)
                    continue;
                const size_t top = strip * c.rows, left = height - top;
                const size_t rows = left < c.rows ? left : c.rows;
                for (size_t r = 0; r < rows + 2; r++)
                    for (size_t i = 0; i < c.inputs * SIDE; i += SIDE)
                        for (size_t p = 0; p < c.pieces; p++) {
                            const size_t row = top + r - 1;
                            __m512i words[SIDE];
                            for (size_t one = 0; one < SIDE; one++)
                                words[one] = row < height && i + one < inputs
                                    ? pixels(plane_of(&in, image, i + one, size) + row * width,
                                             p * 2 * SIDE, width)
                                    : _mm512_setzero_si512();
                            turn(words);
                            uint32_t *to = scratch + r * in_row + p * SIDE * c.inputs * SIDE + i;
                            for (size_t one = 0; one < SIDE; one++)
                                _mm512_store_si512(to + one * c.inputs * SIDE, words[one]);
                        }
                for (size_t r = 0; r < rows; r++)
                    for (size_t kx = 0; kx < 3; kx++)
                        for (size_t o = 0; o < planes; o++)
                            for (size_t p = 0; p < c.pieces; p++)
                                _mm512_store_si512(
                                    given + r * given_row + (kx * planes + o) * wide + p * SIDE,
                                    o < outputs ? pixels(gradient + (image * outputs + o) * size
                                                             + (top + r) * width,
                                                         (ptrdiff_t)(p * 2 * SIDE) + 1 - kx, width)
                                                : _mm512_setzero_si512());
                for (size_t pair = 0; pair < c.pairs; pair++)
                    for (size_t i = 0; i < c.inputs; i++)
                        for (size_t ky = 0; ky < 3; ky++)
                            correlate_tiles(&c, rows,
                                            given + pair * 2 * c.outputs * wide, given_row, planes,
                                            scratch + ky * in_row + i * SIDE, in_row,
                                            own + ((pair * c.inputs + i) * 3 + ky) * 6 * of_tile);
            }
        _tile_release();
        free(scratch);
    }
    #pragma omp parallel for num_threads(threads)
    for (size_t o = 0; o < (failed ? 0 : outputs); o++) {
        const size_t pair = o / (2 * c.outputs), m = o % (2 * c.outputs);
        const real *of_output = sums + pair * c.inputs * TAPS * 2 * of_tile
            + m / c.outputs * of_tile + m % c.outputs * SIDE;
        for (size_t i = 0; i < inputs; i++)
            for (size_t tap = 0; tap < TAPS; tap++) {
                const real *at = of_output + (i / SIDE * TAPS + tap) * 2 * of_tile + i % SIDE;
                double sum = 0;
                for (int t = 0; t < threads; t++)
                    sum += at[count * t];
                result[(o * inputs + i) * TAPS + tap] = sum;
            }
    }
    free(sums);
    return failed;
}
#else
int FUNCTION(tiles)(void) { return 0; }
#endif
