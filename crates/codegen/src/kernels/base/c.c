#include <stdint.h>
#include <string.h>

#if defined(__GNUC__)
#define ES_NOINLINE __attribute__((noinline, unused))
#else
#define ES_NOINLINE
#endif

/* Bytes that do not overlap. */
static inline void es_copy(int8_t *to, const int8_t *from, int32_t count)
{
    memcpy(to, from, (size_t)count);
}

static inline void es_fill(int8_t *to, int32_t value, int32_t count)
{
    memset(to, (int)value, (size_t)count);
}
