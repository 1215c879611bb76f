/* Numbers of a step. */
static inline uint32_t es_dense8_w4_fold(void)
{
    return 8u;
}

#define ES_DENSE8_W4_LOAD              \
    "ldr.w r2, [r0], #4\n"             \
    "rev16.w r3, r2\n"                 \
    "mvn.w r3, r3\n"                   \
    "sxtb16 r2, r2\n"                  \
    "eor.w r3, r3, #0x007f007f\n"

#define ES_DENSE8_W4_FIRST(word, c)    \
    "and r14, " word ", #0xf0f0f0f0\n" \
    "smlad " c ", r14, r2, " c "\n"    \
    "sxtb16 r14, r14, ror #8\n"        \
    "smlad " c ", r14, r3, " c "\n"

#define ES_DENSE8_W4_SECOND(word, c)   \
    "lsl.w r14, " word ", #4\n"        \
    "and r14, r14, #0xf0f0f0f0\n"      \
    "smlad " c ", r14, r2, " c "\n"    \
    "sxtb16 r14, r14, ror #8\n"        \
    "smlad " c ", r14, r3, " c "\n"

/* es_dense8_steps with weights of 4 bits, taken 16 times: eight of a channel are a word, the first four in the high
   halves of its bytes. */
ES_NOINLINE static const int8_t *es_dense8_w4_steps(const int8_t *x, uint32_t steps, const int8_t *w,
                                                    int32_t sum[4])
{
    register const int8_t *at __asm__("r0") = x;
    register const int8_t *weight __asm__("r1") = w;
    register uint32_t rounds __asm__("r8") = steps;
    register int32_t c0 __asm__("r9") = sum[0];
    register int32_t c1 __asm__("r10") = sum[1];
    register int32_t c2 __asm__("r11") = sum[2];
    register int32_t c3 __asm__("r12") = sum[3];
    __asm__ volatile("push {r7}\n"
                     "1:\n"
                     "ldmia.w r1!, {r4, r5, r6, r7}\n"
                     ES_DENSE8_W4_LOAD
                     ES_DENSE8_W4_FIRST("r4", "r9")
                     ES_DENSE8_W4_FIRST("r5", "r10")
                     ES_DENSE8_W4_FIRST("r6", "r11")
                     ES_DENSE8_W4_FIRST("r7", "r12")
                     ES_DENSE8_W4_LOAD
                     ES_DENSE8_W4_SECOND("r4", "r9")
                     ES_DENSE8_W4_SECOND("r5", "r10")
                     ES_DENSE8_W4_SECOND("r6", "r11")
                     ES_DENSE8_W4_SECOND("r7", "r12")
                     "subs r8, r8, #1\n"
                     "bne 1b\n"
                     "pop {r7}\n"
                     : "+&r"(at), "+&r"(weight), "+&r"(rounds), "+&r"(c0), "+&r"(c1), "+&r"(c2), "+&r"(c3)
                     :
                     : "r2", "r3", "r4", "r5", "r6", "r14", "cc", "memory");
    sum[0] = c0;
    sum[1] = c1;
    sum[2] = c2;
    sum[3] = c3;
    return weight;
}
