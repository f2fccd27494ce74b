/* Vectors of the width that the machine has, of the type that REAL names. */
#pragma once
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#ifdef __AVX512F__
#include <immintrin.h>
#define BYTES 64
#elif defined(__AVX__)
#define BYTES 32
#else
#define BYTES 16
#endif

#define ALWAYS_INLINE inline __attribute__((always_inline))
#define JOINED(name, type) name##_##type
#define NAMED(name, type) JOINED(name, type)
#define FUNCTION(name) NAMED(name, REAL)

typedef REAL real;
typedef real vec __attribute__((vector_size(BYTES)));
typedef real unaligned_vec __attribute__((vector_size(BYTES), aligned(sizeof(real)), may_alias));
enum { LANES = BYTES / sizeof(real) };

static ALWAYS_INLINE vec load(const real *at) { return *(const unaligned_vec *)at; }
static ALWAYS_INLINE void store(real *at, vec value) { *(unaligned_vec *)at = value; }

/* Store what nobody needs soon past the caches, where it fills a line of them; `streamed` is to be
 * called before another thread reads it. */
static ALWAYS_INLINE void stream(real *at, vec value)
{
#ifdef __AVX512F__
    if ((size_t)at % BYTES == 0) {
        _mm512_stream_si512((__m512i *)at, (__m512i)value);
        return;
    }
#endif
    store(at, value);
}

static ALWAYS_INLINE void streamed(void)
{
#ifdef __AVX512F__
    _mm_sfence();
#endif
}

static inline real *aligned(size_t count)
{
    return aligned_alloc(BYTES, (count * sizeof(real) + BYTES - 1) / BYTES * BYTES);
}

static inline int thread_number(void)
{
#ifdef _OPENMP
    return omp_get_thread_num();
#else
    return 0;
#endif
}

/* How many threads work together: the system may give fewer than were asked for. */
static inline int team_size(void)
{
#ifdef _OPENMP
    return omp_get_num_threads();
#else
    return 1;
#endif
}
