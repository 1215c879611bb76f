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

/* Numbers of a step. */
static inline uint32_t es_dense8_fold(void)
{
    return 4u;
}

/* Weights lie by fours of channels: four corrections, then words of the four in turn, coded as in es_block8. */
ES_NOINLINE static const int8_t *es_dense8_steps(const int8_t *x, uint32_t steps, const int8_t *w, int32_t sum[4])
{
    register const int8_t *at __asm__("r0") = x;
    register const int8_t *weight __asm__("r1") = w;
    register uint32_t entry __asm__("r2") = ((4u - (steps & 3u)) & 3u) * 68u;
    register uint32_t rounds __asm__("r8") = (steps + 3u) >> 2u;
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
                     : "+&r"(at), "+&r"(weight), "+&r"(entry), "+&r"(rounds), "+&r"(c0), "+&r"(c1), "+&r"(c2),
                       "+&r"(c3)
                     : "r"(flip)
                     : "r3", "r4", "r5", "r6", "cc", "memory");
    sum[0] = c0;
    sum[1] = c1;
    sum[2] = c2;
    sum[3] = c3;
    return weight;
}
