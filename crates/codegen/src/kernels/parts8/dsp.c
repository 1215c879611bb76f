/* Weights of two windows lie by pairs of channels: two corrections, then words of both in turn, with 128 added to bytes 0 and 2. A word is then, as
   two halves, 256 * odd + (even + 128), and
       half * x_even + odd * (x_odd - 128 - 256 * x_even) = even * x_even + odd * x_odd + 128 * (x_even - odd),
   where the last term is known for a window (less) and for a channel (the correction). */

/* Words of four bytes, at least one, to two words of halves for each, 16 bytes apart: the even ones x, and the odd
   ones less 256 * the even ones less 128. Returns the sum and the even ones. */
static inline int32_t es_spread8(const int8_t *x, int32_t words, uint32_t *to, int32_t sum)
{
    uint32_t even;
    uint32_t odd;
    __asm__ volatile("lsls %[even], %[words], #31\n"
                     "bmi 2f\n"
                     "1:\n"
                     "ldr %[even], [%[x]], #4\n"
                     "rev16 %[odd], %[even]\n"
                     "sxtb16 %[even], %[even]\n"
                     "eor %[odd], %[odd], %[flip]\n"
                     "smlad %[sum], %[even], %[one], %[sum]\n"
                     "strd %[even], %[odd], [%[to]], #16\n"
                     "2:\n"
                     "ldr %[even], [%[x]], #4\n"
                     "rev16 %[odd], %[even]\n"
                     "sxtb16 %[even], %[even]\n"
                     "eor %[odd], %[odd], %[flip]\n"
                     "smlad %[sum], %[even], %[one], %[sum]\n"
                     "strd %[even], %[odd], [%[to]], #16\n"
                     "subs %[words], %[words], #2\n"
                     "bgt 1b\n"
                     : [x] "+&r"(x), [words] "+&r"(words), [to] "+&r"(to), [sum] "+&r"(sum), [even] "=&r"(even),
                       [odd] "=&r"(odd)
                     : [flip] "r"(0xff80ff80u), [one] "r"(0x00010001u)
                     : "cc", "memory");
    return sum;
}

/* Bytes by es_spread8, the rest of the last word 0. Returns -128 * the sum of the even ones. */
ES_NOINLINE static int32_t es_expand8(const int8_t *x, int32_t count, uint32_t *to)
{
    const int32_t whole = count & ~3;
    int32_t sum = 0;
    if (whole > 0) {
        sum = es_spread8(x, whole >> 2, to, 0);
    }
    if (whole != count) {
        int8_t last[4] = {0, 0, 0, 0};
        int32_t i;
        for (i = whole; i < count; i++) {
            last[i - whole] = x[i];
        }
        sum = es_spread8(last, 1, &to[4 * (whole >> 2)], sum);
    }
    return -128 * sum;
}

/* Lies behind the windows, where the pointer to them ends. */
typedef struct {
    const uint32_t *window;
    uint32_t entry;
    int32_t rounds;
    const int32_t *bias;
    const int32_t *mult;
    int32_t less[2];
    int32_t zero;
    int32_t shift;
    int8_t *y[2];
    int32_t pairs;
} es_block8_state;

/* In front of the steps: sums of two channels and two pixels, and the first of four steps of "bytes". */
#define ES_BLOCK8_BEGIN(bytes)        \
    "push {r7}\n"                     \
    "ldr r2, [r0, #4]\n"              \
    "movs r3, #" bytes "\n"           \
    "adr.w r4, 2f\n"                  \
    "mla r2, r2, r3, r4\n"            \
    "str r2, [r0, #4]\n"              \
    "1:\n"                            \
    "ldr r2, [r0, #12]\n"             \
    "ldrd r3, r4, [r1], #8\n"         \
    "ldrd r9, r11, [r2], #8\n"        \
    "ldrd r5, r6, [r0, #20]\n"        \
    "str r2, [r0, #12]\n"             \
    "add r9, r9, r3\n"                \
    "add r11, r11, r4\n"              \
    "add r10, r9, r6\n"               \
    "add r12, r11, r6\n"              \
    "add r9, r9, r5\n"                \
    "add r11, r11, r5\n"              \
    "ldm r0, {r0, r3, r14}\n"         \
    "mov pc, r3\n"                    \
    ".p2align 2\n"                    \
    "2:\n"

/* Behind them: the sums to int8. */
#define ES_BLOCK8_END                 \
    "subs r14, r14, #1\n"             \
    "bne 2b\n"                        \
    "ldr r2, [r0, #16]\n"             \
    "ldrd r5, r6, [r0, #28]\n"        \
    "ldrd r3, r4, [r2], #8\n"         \
    "str r2, [r0, #16]\n"             \
    "cbz r6, 3f\n"                    \
    "lsl r9, r9, r6\n"                \
    "lsl r10, r10, r6\n"              \
    "lsl r11, r11, r6\n"              \
    "lsl r12, r12, r6\n"              \
    "3:\n"                            \
    "ldrd r7, r14, [r0, #36]\n"       \
    "smmlar r9, r9, r3, r5\n"         \
    "smmlar r10, r10, r3, r5\n"       \
    "smmlar r11, r11, r4, r5\n"       \
    "smmlar r12, r12, r4, r5\n"       \
    "ldr r2, [r0, #44]\n"             \
    "ssat r9, #8, r9\n"               \
    "ssat r10, #8, r10\n"             \
    "ssat r11, #8, r11\n"             \
    "ssat r12, #8, r12\n"             \
    "strb r9, [r7], #1\n"             \
    "strb r10, [r14], #1\n"           \
    "strb r11, [r7], #1\n"            \
    "strb r12, [r14], #1\n"           \
    "strd r7, r14, [r0, #36]\n"       \
    "subs r2, r2, #1\n"               \
    "str r2, [r0, #44]\n"             \
    "bne 1b\n"                        \
    "pop {r7}\n"

/* What the state is for windows of so many steps, the first of a loop of "unroll". */
static void es_begin8(es_block8_state *state, const es_requant *to, int32_t out_c, const uint32_t *windows,
                      uint32_t steps, uint32_t unroll, const int32_t less[2], int8_t *y0, int8_t *y1)
{
    state->window = windows;
    state->entry = (unroll - (steps % unroll)) % unroll;
    state->rounds = (int32_t)((steps + unroll - 1u) / unroll);
    state->bias = to->bias;
    state->mult = to->mult;
    state->less[0] = less[0];
    state->less[1] = less[1];
    state->zero = to->zero;
    state->shift = to->shift;
    state->y[0] = y0;
    state->y[1] = y1;
    state->pairs = out_c >> 1;
}
