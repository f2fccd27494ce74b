/* Rows of numbers read from a file, some columns of them kept. */
#include "vectors.h"
#include <errno.h>
#include <stdint.h>
#include <unistd.h>

enum { STRIP = 192 * 1024, FILE_ENDS = -1 };

/* Read `count` bytes from `offset`, and clear of each row of `words` what `keep` has no bits for. */
static int read_strip(int file, off_t offset, size_t count, const uint32_t *keep, size_t words,
                      uint32_t *out)
{
    for (size_t done = 0; done < count;) {
        ssize_t piece = pread(file, (char *)out + done, count - done, offset + (off_t)done);
        if (piece < 0 && errno != EINTR)
            return errno;
        if (piece == 0)
            return FILE_ENDS;
        done += piece < 0 ? 0 : (size_t)piece;
    }
    if (keep)
        for (uint32_t *row = out; row < out + count / sizeof *out; row += words)
            for (size_t i = 0; i < words; i++)
                row[i] &= keep[i];
    return 0;
}

/* Read rows that lie one after the other in a file, each of `words` times four bytes: strip by
 * strip, so that each is still in the cache when it is masked. `keep` is a row of bits, or NULL.
 * Returns 0, the number of the system's error, or FILE_ENDS where the file is too short. */
int FUNCTION(read_rows)(int file, size_t offset, size_t rows, size_t words, const uint32_t *keep,
                        uint32_t *out, int threads)
{
    const size_t row = words * sizeof *out, most = row < STRIP ? STRIP / row : 1;
    const size_t strips = (rows + most - 1) / most;
    int failed = 0;
    #define ONE(strip) do { \
        size_t first = (strip) * most, count = rows - first < most ? rows - first : most; \
        int found = read_strip(file, (off_t)(offset + first * row), count * row, keep, words, \
                               out + first * words); \
        if (found) \
            _Pragma("omp atomic write") failed = found; \
    } while (0)
    /* A forked process must not even ask for a team. */
    if (threads == 1) {
        for (size_t strip = 0; strip < strips && !failed; strip++)
            ONE(strip);
    } else {
        #pragma omp parallel for schedule(static) num_threads(threads)
        for (size_t strip = 0; strip < strips; strip++)
            ONE(strip);
    }
    return failed;
}
