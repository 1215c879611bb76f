/* Bytes of a window of k bytes, and of the weights of so many channels. */
static inline int32_t es_block8_w4_size(int32_t k)
{
    return (k + 31) & ~31;
}

static inline int32_t es_block8_w4_bytes(int32_t channels, int32_t k)
{
    return ((channels + 3) & ~3) * (es_block8_w4_size(k) >> 1);
}

#define ES_BLOCK8_W4_CHANNEL(c0, c1)     \
    "vldrb.8 q4, [r5], #16\n"            \
    "vand q5, q4, q6\n"                  \
    "vmladava.s8 " c0 ", q0, q5\n"       \
    "vmladava.s8 " c1 ", q1, q5\n"       \
    "vshl.i8 q5, q4, #4\n"               \
    "vmladava.s8 " c0 ", q2, q5\n"       \
    "vmladava.s8 " c1 ", q3, q5\n"

/* es_block8 with weights of 4 bits, taken 16 times: 32 of a channel are 16 bytes, the first 16 in their high halves. */
ES_NOINLINE static void es_block8_w4(const es_requant *to, int32_t out_c, int32_t size, int8_t *windows,
                                     const int8_t *w, int8_t *y0, int8_t *y1)
{
    es_block8_state *const state = (es_block8_state *)(void *)&windows[2 * size];
    register void *at __asm__("r3") = state;
    register const int8_t *weight __asm__("r5") = w;
    es_begin8(state, to, out_c, windows, size, size >> 5, y0, y1);
    at = state;
    weight = w;
    __asm__ volatile("push {r7}\n"
                     "ldrd r9, r11, [r3, #32]\n"
                     "1:\n"
                     "vmov.i8 q6, #0xf0\n"
                     "ldr r7, [r3, #8]\n"
                     "ldrd r1, r3, [r3]\n"
                     "mov r0, #0\n"
                     "mov r2, #0\n"
                     "mov r4, #0\n"
                     "mov r6, #0\n"
                     "mov r8, #0\n"
                     "mov r10, #0\n"
                     "mov r12, #0\n"
                     "mov lr, #0\n"
                     "2:\n"
                     "vldrb.8 q0, [r1], #16\n"
                     "vldrb.8 q1, [r3], #16\n"
                     "vldrb.8 q2, [r1], #16\n"
                     "vldrb.8 q3, [r3], #16\n"
                     ES_BLOCK8_W4_CHANNEL("r0", "r8")
                     ES_BLOCK8_W4_CHANNEL("r2", "r10")
                     ES_BLOCK8_W4_CHANNEL("r4", "r12")
                     ES_BLOCK8_W4_CHANNEL("r6", "lr")
                     "subs r7, r7, #1\n"
                     "bne 2b\n"
                     "ldrd r1, r7, [r3, #40]\n"
                     "vdup.32 q6, r1\n"
                     "vdup.32 q7, r7\n"
                     ES_BLOCK8_END
                     : "+&r"(at), "+&r"(weight)
                     :
                     : "r0", "r1", "r2", "r4", "r6", "r8", "r9", "r10", "r11", "r12", "lr", "q0", "q1", "q2",
                       "q3", "q4", "q5", "q6", "q7", "cc", "memory");
}
