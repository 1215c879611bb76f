#include <stdint.h>
#include <string.h>
#include <arm_mve.h>

#if defined(__GNUC__)
#define ES_NOINLINE __attribute__((noinline, unused))
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

/* Bytes that do not overlap. */
static inline void es_copy(int8_t *to, const int8_t *from, int32_t count)
{
    __asm__ volatile("wlstp.8 lr, %2, 2f\n"
                     "1:\n"
                     "vldrb.8 q0, [%1], #16\n"
                     "vstrb.8 q0, [%0], #16\n"
                     "letp lr, 1b\n"
                     "2:\n"
                     : "+&r"(to), "+&r"(from)
                     : "r"(count)
                     : "q0", "lr", "memory");
}

static inline void es_fill(int8_t *to, int32_t value, int32_t count)
{
    __asm__ volatile("vdup.8 q0, %1\n"
                     "wlstp.8 lr, %2, 2f\n"
                     "1:\n"
                     "vstrb.8 q0, [%0], #16\n"
                     "letp lr, 1b\n"
                     "2:\n"
                     : "+&r"(to)
                     : "r"(value), "r"(count)
                     : "q0", "lr", "memory");
}
