/* Words of four of a window of k bytes, and bytes of the weights of so many channels. */
static inline int32_t es_block8_words(int32_t k)
{
    return (k + 3) >> 2;
}

static inline int32_t es_block8_bytes(int32_t channels, int32_t k)
{
    return ((channels + 1) >> 1) * (8 + (8 * es_block8_words(k)));
}

#define ES_BLOCK8_STEP                \
    "ldmia.w r0!, {r2, r3, r4, r5}\n" \
    "ldrd r6, r7, [r1], #8\n"         \
    "smlad r9, r6, r2, r9\n"          \
    "smlad r10, r6, r4, r10\n"        \
    "sxtb16 r6, r6, ror #8\n"         \
    "smlad r11, r7, r2, r11\n"        \
    "smlad r12, r7, r4, r12\n"        \
    "sxtb16 r7, r7, ror #8\n"         \
    "smlad r9, r6, r3, r9\n"          \
    "smlad r10, r6, r5, r10\n"        \
    "smlad r11, r7, r3, r11\n"        \
    "smlad r12, r7, r5, r12\n"

/* Two windows in the order of es_expand8 times all channels: the two pixels y0 and y1. */
ES_NOINLINE static void es_block8(const es_requant *to, int32_t out_c, int32_t k, uint32_t *windows,
                                  const int32_t less[2], const int8_t *w, int8_t *y0, int8_t *y1)
{
    const uint32_t words = (uint32_t)es_block8_words(k);
    es_block8_state *const state = (es_block8_state *)(void *)&windows[words * 4u];
    register void *at __asm__("r0") = state;
    register const int8_t *weight __asm__("r1") = w;
    es_begin8(state, to, out_c, windows, words, 4u, less, y0, y1);
    at = state;
    weight = w;
    if (out_c > 1) {
        __asm__ volatile(ES_BLOCK8_BEGIN("48")
                         ES_BLOCK8_STEP ES_BLOCK8_STEP ES_BLOCK8_STEP ES_BLOCK8_STEP
                         ES_BLOCK8_END
                         : "+&r"(at), "+&r"(weight)
                         :
                         : "r2", "r3", "r4", "r5", "r6", "r8", "r9", "r10", "r11", "r12", "r14", "cc",
                           "memory");
    }
    if ((out_c & 1) != 0) {
        const int32_t last = out_c - 1;
        const uint32_t *word = (const uint32_t *)(const void *)weight;
        int32_t acc0 = to->bias[last] + (int32_t)word[0];
        int32_t acc1 = acc0 + less[1];
        uint32_t i;
        acc0 += less[0];
        for (i = 0u; i < words; i++) {
            const uint32_t odd = es_odd(word[(2u * i) + 2u]);
            const uint32_t *const four = &windows[4u * i];
            acc0 = es_dot(odd, four[1], es_dot(word[(2u * i) + 2u], four[0], acc0));
            acc1 = es_dot(odd, four[3], es_dot(word[(2u * i) + 2u], four[2], acc1));
        }
        state->y[0][0] = es_requantise(to, acc0, to->mult[last]);
        state->y[1][0] = es_requantise(to, acc1, to->mult[last]);
    }
}
