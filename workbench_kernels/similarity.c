/* The mean SSIM of two images, and its gradient; in double precision whatever the images are.
 *
 * Four sums over each window are needed: of x, y, x^2 + y^2 and xy. Down a column they are carried
 * from row to row (the new one added, the one that leaves taken off), along a row they are formed
 * of 2, 4 and 4 + 2 + 1 neighbours. So the image is passed over once, in rows that stay in the
 * innermost cache. The gradient takes the same way back: what each window gives to its pixels is
 * summed along the row, and carried down.
 */
#include "vectors.h"

enum { WINDOW = 7, SUMS = 4, PARTS = 3, BAND = 48 };

/* out[i] = in[i] + ... + in[i + 6] */
static void along(const double *in, double *out, double *two, size_t count)
{
    #pragma omp simd
    for (size_t i = 0; i < count + 5; i++)
        two[i] = in[i] + in[i + 1];
    #pragma omp simd
    for (size_t i = 0; i < count; i++)
        out[i] = two[i] + two[i + 2] + (two[i + 4] + in[i + 6]);
}

/* Add a row's products to the sums down each column, or take them off. */
static void carry(const real *x, const real *y, double sign, double *sums, size_t width)
{
    double *of_x = sums, *of_y = of_x + width, *squares = of_y + width, *product = squares + width;
    #pragma omp simd
    for (size_t i = 0; i < width; i++) {
        double one = x[i], two = y[i], signed_one = sign * one, signed_two = sign * two;
        of_x[i] += signed_one;
        of_y[i] += signed_two;
        squares[i] += signed_one * one + signed_two * two;
        product[i] += signed_one * two;
    }
}

/* Return the sum of the SSIM of the windows of one row; with `parts`, also its derivatives by the
 * window's mean of x, of x^2 + y^2 and of xy. */
static double compare(const double *sums, size_t count, double weight, double c1, double c2,
                      double *parts, size_t stride)
{
    const double sample = WINDOW * WINDOW / (WINDOW * WINDOW - 1.0);
    const double *of_x = sums, *of_y = sums + count, *q = of_y + count, *p = q + count;
    double *by_x = parts, *by_q = parts + stride, *by_p = parts + 2 * stride, total = 0;
    #define WINDOWS(MORE) \
        _Pragma("omp simd reduction(+ : total)") \
        for (size_t i = 0; i < count; i++) { \
            double x = weight * of_x[i], y = weight * of_y[i]; \
            double xy = x * y, xx = x * x + y * y; \
            double n1 = 2 * xy + c1, n2 = 2 * sample * (weight * p[i] - xy) + c2; \
            double d1 = xx + c1, d2 = sample * (weight * q[i] - xx) + c2; \
            double over = 1 / (d1 * d2), value = n1 * n2 * over; \
            total += value; \
            MORE \
        }
    if (parts) {
        WINDOWS(by_q[i] = -sample * value * d1 * over; by_p[i] = 2 * sample * n1 * over;
                by_x[i] = 2 * (y * (n2 - sample * n1) - x * value * (d2 - sample * d1)) * over;)
    } else {
        WINDOWS()
    }
    return total;
}

/* A band of two images (height, width), from row `first` on and before row `last`: what the windows
 * that begin in it give to the mean SSIM over all windows and, where `gradient` is not NULL, the
 * gradient of that mean by the band of the first image. Returns 1 where memory was refused. */
static int similarity(const real *image, const real *target, size_t height, size_t width,
                      size_t first, size_t last, double range, double weight, double *mean,
                      real *gradient)
{
    const size_t rows = height - WINDOW + 1, count = width - WINDOW + 1;
    const size_t stride = width + 2 * WINDOW; /* of derivatives, with zeros on both sides */
    const double c1 = 0.01 * 0.01 * range * range, c2 = 0.03 * 0.03 * range * range;
    const size_t kept = gradient ? PARTS * (stride + width) + WINDOW * PARTS * width : 0;
    const size_t needed = SUMS * (width + count) + stride + kept;
    /* A row's gradient takes of the windows that begin in it and in the six rows above. */
    const size_t start = gradient && first >= WINDOW ? first - WINDOW + 1 : gradient ? 0 : first;
    const size_t end = gradient || last < rows ? last : rows;
    double *sums = calloc(needed, sizeof(double)), total = 0;
    if (!sums)
        return 1;
    double *windows = sums + SUMS * width, *scratch = windows + SUMS * count;
    double *parts = scratch + stride, *down = parts + PARTS * stride, *ring = down + PARTS * width;

    for (size_t row = start; row < start + WINDOW - 1 && row < height; row++)
        carry(image + row * width, target + row * width, 1, sums, width);
    for (size_t row = start; row < end; row++) {
        if (row < rows) {
            size_t lowest = (row + WINDOW - 1) * width;
            carry(image + lowest, target + lowest, 1, sums, width);
            for (size_t s = 0; s < SUMS; s++)
                along(sums + s * width, windows + s * count, scratch, count);
            double found = compare(windows, count, weight, c1, c2,
                                   gradient ? parts + WINDOW - 1 : NULL, stride);
            total += row >= first ? found : 0;
            carry(image + row * width, target + row * width, -1, sums, width);
        }
        if (!gradient)
            continue;
        for (size_t part = 0; part < PARTS; part++) {
            double *place = ring + (row % WINDOW * PARTS + part) * width, *own = down + part * width;
            #pragma omp simd
            for (size_t i = 0; i < width; i++)
                own[i] -= place[i];
            if (row < rows)
                along(parts + part * stride, place, scratch, width);
            else
                memset(place, 0, width * sizeof(double));
            #pragma omp simd
            for (size_t i = 0; i < width; i++)
                own[i] += place[i];
        }
        if (row < first)
            continue;
        const real *x = image + row * width, *y = target + row * width;
        const double *by_x = down, *by_q = down + width, *by_p = by_q + width;
        const double scale = weight / (rows * count);
        #pragma omp simd
        for (size_t i = 0; i < width; i++)
            gradient[row * width + i] = scale * (by_x[i] + 2 * x[i] * by_q[i] + y[i] * by_p[i]);
    }
    free(sums);
    *mean = total / (rows * count);
    return 0;
}

/* The mean SSIM of each image of a batch, `weight` being 1/49 as it is to be rounded. Where there
 * are more threads than images, each image is split into bands. Returns 1 where memory was refused. */
int FUNCTION(similarities)(const real *images, const real *targets, const double *ranges,
                           double *means, real *gradients, size_t batch, size_t height,
                           size_t width, double weight, int threads)
{
    if (!batch)
        return 0;
    const size_t shared = (threads + batch - 1) / batch, most = (height + BAND - 1) / BAND;
    const size_t bands = shared < most ? shared : most;
    double *found = malloc(batch * bands * sizeof(double));
    int failed = !found;
    #pragma omp parallel for schedule(static) num_threads(threads) reduction(| : failed)
    for (size_t one = 0; one < (found ? batch * bands : 0); one++) {
        size_t image = one / bands, band = one % bands, from = image * height * width;
        failed |= similarity(images + from, targets + from, height, width, band * height / bands,
                             (band + 1) * height / bands, ranges[image], weight, found + one,
                             gradients ? gradients + from : NULL);
    }
    for (size_t image = 0; image < batch && !failed; image++) {
        means[image] = 0;
        for (size_t band = 0; band < bands; band++)
            means[image] += found[image * bands + band];
    }
    free(found);
    return failed;
}

/* Of each image of a batch, the sum of (image - target)^2 and of target^2: (batch, 2). */
void FUNCTION(errors)(const real *images, const real *targets, double *sums, size_t batch,
                      size_t height, size_t width, int threads)
{
    #pragma omp parallel for schedule(static) num_threads(threads)
    for (size_t image = 0; image < batch; image++) {
        const real *x = images + image * height * width, *y = targets + image * height * width;
        double error = 0, power = 0;
        #pragma omp simd reduction(+ : error, power)
        for (size_t i = 0; i < height * width; i++) {
            double expected = y[i], off = x[i] - expected;
            error += off * off;
            power += expected * expected;
        }
        sums[2 * image] = error;
        sums[2 * image + 1] = power;
    }
}
