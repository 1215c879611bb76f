#include <stdint.h>
#include <string.h>

#if defined(__GNUC__)
#define ES_NOINLINE __attribute__((noinline))
#else
#define ES_NOINLINE
#endif

/* Four bytes from any address. */
static inline uint32_t es_word(const int8_t *at)
{
    uint32_t word;
    __builtin_memcpy(&word, at, 4u);
    return word;
}

/* Sign-extended bytes 0 and 2. */
static inline uint32_t es_even(uint32_t word)
{
    uint32_t pair;
    __asm__("sxtb16 %0, %1" : "=r"(pair) : "r"(word));
    return pair;
}

/* Sign-extended bytes 1 and 3. */
static inline uint32_t es_odd(uint32_t word)
{
    uint32_t pair;
    __asm__("sxtb16 %0, %1, ror #8" : "=r"(pair) : "r"(word));
    return pair;
}

/* sum + a.low * b.low + a.high * b.high */
static inline int32_t es_dot(uint32_t a, uint32_t b, int32_t sum)
{
    int32_t out;
    __asm__("smlad %0, %1, %2, %3" : "=r"(out) : "r"(a), "r"(b), "r"(sum));
    return out;
}
