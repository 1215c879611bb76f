/* Words of four of a window of k bytes, and bytes of the weights of so many channels. */
static inline int32_t es_block8_w4_words(int32_t k)
{
    return ((k + 7) >> 3) * 2;
}

static inline int32_t es_block8_w4_bytes(int32_t channels, int32_t k)
{
    return ((channels + 1) >> 1) * (8 + (4 * es_block8_w4_words(k)));
}

#define ES_BLOCK8_W4_FOUR(word, c0, c1) \
    "smlad " c0 ", " word ", r2, " c0 "\n" \
    "smlad " c1 ", " word ", r4, " c1 "\n" \
    "sxtb16 " word ", " word ", ror #8\n"  \
    "smlad " c0 ", " word ", r3, " c0 "\n" \
    "smlad " c1 ", " word ", r5, " c1 "\n"

/* Eight weights of a channel are a word: the first four are the high halves of its bytes. */
#define ES_BLOCK8_W4_STEP               \
    "ldmia.w r0!, {r2, r3, r4, r5}\n"   \
    "ldrd r6, r7, [r1], #8\n"           \
    "and r8, r6, #0xf0f0f0f0\n"         \
    ES_BLOCK8_W4_FOUR("r8", "r9", "r10") \
    "and r8, r7, #0xf0f0f0f0\n"         \
    ES_BLOCK8_W4_FOUR("r8", "r11", "r12") \
    "ldmia.w r0!, {r2, r3, r4, r5}\n"   \
    "lsl.w r6, r6, #4\n"                \
    "and r6, r6, #0xf0f0f0f0\n"         \
    ES_BLOCK8_W4_FOUR("r6", "r9", "r10") \
    "lsl.w r7, r7, #4\n"                \
    "and r7, r7, #0xf0f0f0f0\n"         \
    ES_BLOCK8_W4_FOUR("r7", "r11", "r12")

/* es_block8 with weights of 4 bits, taken 16 times. */
ES_NOINLINE static void es_block8_w4(const es_requant *to, int32_t out_c, int32_t k, uint32_t *windows,
                                     const int32_t less[2], const int8_t *w, int8_t *y0, int8_t *y1)
{
    const uint32_t words = (uint32_t)es_block8_w4_words(k);
    es_block8_state *const state = (es_block8_state *)(void *)&windows[words * 4u];
    register void *at __asm__("r0") = state;
    register const int8_t *weight __asm__("r1") = w;
    uint32_t i;
    if (((k + 3) >> 2) != (int32_t)words) {
        for (i = 1u; i <= 4u; i++) {
            windows[(words * 4u) - i] = 0u;
        }
    }
    es_begin8(state, to, out_c, windows, words >> 1u, 2u, less, y0, y1);
    at = state;
    weight = w;
    if (out_c > 1) {
        __asm__ volatile(ES_BLOCK8_BEGIN("116")
                         ES_BLOCK8_W4_STEP ES_BLOCK8_W4_STEP
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
        acc0 += less[0];
        for (i = 0u; i < words; i++) {
            const uint32_t both = word[(i & ~1u) + 2u];
            const uint32_t half = (((i & 1u) != 0u) ? (both << 4u) : both) & 0xf0f0f0f0u;
            const uint32_t odd = es_odd(half);
            const uint32_t *const four = &windows[4u * i];
            acc0 = es_dot(odd, four[1], es_dot(half, four[0], acc0));
            acc1 = es_dot(odd, four[3], es_dot(half, four[2], acc1));
        }
        state->y[0][0] = es_requantise(to, acc0, to->mult[last]);
        state->y[1][0] = es_requantise(to, acc1, to->mult[last]);
    }
}
