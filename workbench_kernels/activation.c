/* Instance normalisation and leaky ReLU.
 *
 * Of images whose channels are planes, a plane at a time: it is read from memory once, stays in a
 * core's cache while its mean and its deviation are formed, and is written once. Of images whose
 * channels lie side by side at each pixel ("last"), by all threads together, a share of the pixels
 * each. Sums are of short pieces first, and over pieces in double precision.
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

/* Each thread's share of a sum a channel, and of a second one. */
typedef struct {
    double *sums;
    size_t channels;
} Shares;

static double *share_of(const Shares *shares, int thread)
{
    return shares->sums + (size_t)thread * 2 * shares->channels;
}

/* Add a piece's sums to the thread's share of them, and clear them. */
static void settle(real *piece, double *share, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        share[i] += piece[i];
        piece[i] = 0;
    }
}

/* The mean over all pixels, in the order of the threads: the same result every time. */
static void mean_of(const Shares *shares, size_t which, size_t pixels, real *means)
{
    for (size_t c = 0; c < shares->channels; c++) {
        double sum = 0;
        for (int t = 0; t < team_size(); t++)
            sum += share_of(shares, t)[which * shares->channels + c];
        means[c] = sum / pixels;
    }
}

enum { PIXELS = 64 };

/* As `activate`, in place, of images (pixels, channels). Returns 1 where memory was refused. */
int FUNCTION(activate_last)(real *images, real *scales, size_t batch, size_t pixels,
                            size_t channels, double epsilon, double slope_, int threads)
{
    const real slope = slope_;
    Shares shares = {malloc(2 * channels * threads * sizeof(double)), channels};
    real *all = malloc(3 * channels * threads * sizeof(real));
    int failed = !shares.sums || !all;
    #pragma omp parallel num_threads(threads) if (!failed)
    for (size_t image = 0; image < batch && !failed; image++) {
        const int thread = thread_number(), team = team_size();
        const size_t first = pixels * thread / team, end = pixels * (thread + 1) / team;
        real *at = images + image * pixels * channels, *scale = scales + image * channels;
        real *piece = all + 3 * channels * thread, *mean = piece + channels;
        real *own_scale = mean + channels;
        double *share = share_of(&shares, thread);

        memset(share, 0, 2 * channels * sizeof(double));
        memset(piece, 0, channels * sizeof(real));
        for (size_t from = first; from < end; from += PIXELS) {
            for (size_t p = from; p < from + PIXELS && p < end; p++)
                #pragma omp simd
                for (size_t c = 0; c < channels; c++)
                    piece[c] += at[p * channels + c];
            settle(piece, share, channels);
        }
        #pragma omp barrier
        mean_of(&shares, 0, pixels, mean);
        for (size_t from = first; from < end; from += PIXELS) {
            for (size_t p = from; p < from + PIXELS && p < end; p++)
                #pragma omp simd
                for (size_t c = 0; c < channels; c++) {
                    real centred = at[p * channels + c] - mean[c];
                    piece[c] += centred * centred;
                }
            settle(piece, share + channels, channels);
        }
        #pragma omp barrier
        mean_of(&shares, 1, pixels, own_scale);
        for (size_t c = 0; c < channels; c++)
            own_scale[c] = 1 / sqrt(own_scale[c] + epsilon);
        if (!thread)
            memcpy(scale, own_scale, channels * sizeof(real));
        for (size_t p = first; p < end; p++)
            #pragma omp simd
            for (size_t c = 0; c < channels; c++)
                at[p * channels + c] =
                    leaky((at[p * channels + c] - mean[c]) * own_scale[c], slope);
        #pragma omp barrier
    }
    free(all);
    free(shares.sums);
    return failed;
}

/* The gradient of `activate_last`'s input, given its result and the result's gradient. */
int FUNCTION(activate_last_gradient)(const real *results, const real *gradients,
                                     const real *scales, real *outs, size_t batch, size_t pixels,
                                     size_t channels, double slope_, int threads)
{
    const real slope = slope_, steep = 1 / slope_;
    Shares shares = {malloc(2 * channels * threads * sizeof(double)), channels};
    real *all = malloc(4 * channels * threads * sizeof(real));
    int failed = !shares.sums || !all;
    #pragma omp parallel num_threads(threads) if (!failed)
    for (size_t image = 0; image < batch && !failed; image++) {
        const int thread = thread_number(), team = team_size();
        const size_t first = pixels * thread / team, end = pixels * (thread + 1) / team;
        const real *y = results + image * pixels * channels, *scale = scales + image * channels;
        const real *g = gradients + image * pixels * channels;
        real *to = outs + image * pixels * channels;
        real *piece = all + 4 * channels * thread, *mean = piece + 2 * channels;
        real *tilt = mean + channels;
        double *share = share_of(&shares, thread);

        memset(share, 0, 2 * channels * sizeof(double));
        memset(piece, 0, 2 * channels * sizeof(real));
        for (size_t from = first; from < end; from += PIXELS) {
            for (size_t p = from; p < from + PIXELS && p < end; p++)
                #pragma omp simd
                for (size_t c = 0; c < channels; c++) {
                    size_t i = p * channels + c;
                    real through = y[i] > 0 ? g[i] : g[i] * slope;
                    piece[c] += through;
                    piece[channels + c] += through * leaky(y[i], steep);
                }
            settle(piece, share, 2 * channels);
        }
        #pragma omp barrier
        mean_of(&shares, 0, pixels, mean);
        mean_of(&shares, 1, pixels, tilt);
        for (size_t p = first; p < end; p++)
            #pragma omp simd
            for (size_t c = 0; c < channels; c++) {
                size_t i = p * channels + c;
                real through = y[i] > 0 ? g[i] : g[i] * slope;
                to[i] = (through - mean[c] - leaky(y[i], steep) * tilt[c]) * scale[c];
            }
        #pragma omp barrier
    }
    free(all);
    free(shares.sums);
    return failed;
}
