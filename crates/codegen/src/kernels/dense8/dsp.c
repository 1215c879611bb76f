/* rows of in times out channels of in. */
typedef struct {
    int32_t rows;
    int32_t in;
    int32_t out;
    es_requant to;
} es_dense;

/* The sum of bytes 0 and 2 of each four. */
static int32_t es_even_sum8(const int8_t *x, int32_t count)
{
    int32_t sum = 0;
    int32_t i;
    for (; count >= 4; count -= 4) {
        sum = es_dot(es_even(es_word(x)), 0x00010001u, sum);
        x = &x[4];
    }
    for (i = 0; i < count; i += 2) {
        sum += x[i];
    }
    return sum;
}

#define ES_DENSE8_STEP                \
    "ldr.w r2, [r0], #4\n"            \
    "ldmia.w r1!, {r4, r5, r6, r7}\n" \
    "rev16.w r3, r2\n"                \
    "sxtb16 r2, r2\n"                 \
    "eor.w r3, r3, r14\n"            \
    "smlad r9, r4, r2, r9\n"          \
    "sxtb16 r4, r4, ror #8\n"         \
    "smlad r10, r5, r2, r10\n"        \
    "sxtb16 r5, r5, ror #8\n"         \
    "smlad r11, r6, r2, r11\n"        \
    "sxtb16 r6, r6, ror #8\n"         \
    "smlad r12, r7, r2, r12\n"        \
    "sxtb16 r7, r7, ror #8\n"         \
    "smlad r9, r4, r3, r9\n"          \
    "smlad r10, r5, r3, r10\n"        \
    "smlad r11, r6, r3, r11\n"        \
    "smlad r12, r7, r3, r12\n"

/* Weights lie by fours of channels: four corrections, then words of the four in turn, coded as in es_block8. */
ES_NOINLINE static const int8_t *es_dense8_words(const int8_t *x, uint32_t words, const int8_t *w, int32_t sum[4])
{
    register const int8_t *at __asm__("r0") = x;
    register const int8_t *weight __asm__("r1") = w;
    register uint32_t entry __asm__("r2") = ((4u - (words & 3u)) & 3u) * 68u;
    register uint32_t rounds __asm__("r8") = (words + 3u) >> 2u;
    register uint32_t flip __asm__("r14") = 0xff80ff80u;
    register int32_t c0 __asm__("r9") = sum[0];
    register int32_t c1 __asm__("r10") = sum[1];
    register int32_t c2 __asm__("r11") = sum[2];
    register int32_t c3 __asm__("r12") = sum[3];
    __asm__ volatile("push {r7}\n"
                     "adr.w r3, 2f\n"
                     "add r2, r2, r3\n"
                     "mov pc, r2\n"
                     ".p2align 2\n"
                     "2:\n" ES_DENSE8_STEP ES_DENSE8_STEP ES_DENSE8_STEP ES_DENSE8_STEP
                     "subs r8, r8, #1\n"
                     "bne 2b\n"
                     "pop {r7}\n"
                     : "+r"(at), "+r"(weight), "+r"(entry), "+r"(rounds), "+r"(c0), "+r"(c1), "+r"(c2),
                       "+r"(c3)
                     : "r"(flip)
                     : "r3", "r4", "r5", "r6", "cc", "memory");
    sum[0] = c0;
    sum[1] = c1;
    sum[2] = c2;
    sum[3] = c3;
    return weight;
}

static void es_dense8(const es_dense *p, const int8_t *x, const int8_t *w, int8_t *y)
{
    const uint32_t words = (uint32_t)p->in >> 2u;
    const int32_t rest = p->in & 3;
    int8_t last[4] = {0, 0, 0, 0};
    int32_t row;
    int32_t c;
    int32_t i;
    for (row = 0; row < p->rows; row++) {
        const int32_t less = -128 * es_even_sum8(x, p->in);
        const int8_t *weight = w;
        for (i = 0; i < rest; i++) {
            last[i] = x[(p->in - rest) + i];
        }
        for (c = 0; c < p->out; c += 4) {
            const int32_t some = ((p->out - c) < 4) ? (p->out - c) : 4;
            int32_t sum[4];
            for (i = 0; i < 4; i++) {
                sum[i] = less + ((const int32_t *)(const void *)weight)[i];
                if (i < some) {
                    sum[i] += p->to.bias[c + i];
                }
            }
            weight = &weight[16];
            if (words > 0u) {
                weight = es_dense8_words(x, words, weight, sum);
            }
            if (rest != 0) {
                weight = es_dense8_words(last, 1u, weight, sum);
            }
            for (i = 0; i < some; i++) {
                y[c + i] = es_requantise(&p->to, sum[i], p->to.mult[c + i]);
            }
        }
        ES_BOUND(&p->to, y, p->out);
        x = &x[p->in];
        y = &y[p->out];
    }
}
