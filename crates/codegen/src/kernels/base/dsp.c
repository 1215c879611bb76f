#include <stdint.h>
#include <string.h>

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
    uint32_t word;
    __asm__ volatile("subs %2, %2, #4\n"
                     "blt 2f\n"
                     "1:\n"
                     "ldr %3, [%1], #4\n"
                     "str %3, [%0], #4\n"
                     "subs %2, %2, #4\n"
                     "bge 1b\n"
                     "2:\n"
                     "adds %2, %2, #4\n"
                     "beq 4f\n"
                     "3:\n"
                     "ldrb %3, [%1], #1\n"
                     "strb %3, [%0], #1\n"
                     "subs %2, %2, #1\n"
                     "bne 3b\n"
                     "4:\n"
                     : "+&r"(to), "+&r"(from), "+&r"(count), "=&r"(word)
                     :
                     : "cc", "memory");
}

static inline void es_fill(int8_t *to, int32_t value, int32_t count)
{
    const uint32_t word = (uint32_t)(uint8_t)value * 0x01010101u;
    __asm__ volatile("subs %1, %1, #4\n"
                     "blt 2f\n"
                     "1:\n"
                     "str %2, [%0], #4\n"
                     "subs %1, %1, #4\n"
                     "bge 1b\n"
                     "2:\n"
                     "adds %1, %1, #4\n"
                     "beq 4f\n"
                     "3:\n"
                     "strb %2, [%0], #1\n"
                     "subs %1, %1, #1\n"
                     "bne 3b\n"
                     "4:\n"
                     : "+&r"(to), "+&r"(count)
                     : "r"(word)
                     : "cc", "memory");
}
