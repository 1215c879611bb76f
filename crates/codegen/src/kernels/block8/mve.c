/* Two windows of size bytes (by 16), one after the other, times all channels: the two pixels y0 and y1. Weights
   lie by fours of channels: 16 bytes of each in turn. */

/* Bytes of a window of k bytes, and of the weights of so many channels. */
static inline int32_t es_block8_size(int32_t k)
{
    return (k + 15) & ~15;
}

static inline int32_t es_block8_bytes(int32_t channels, int32_t k)
{
    return ((channels + 3) & ~3) * es_block8_size(k);
}

#define ES_BLOCK8_LOAD           \
    "vldrb.8 q0, [r1], #16\n"    \
    "vldrb.8 q2, [r5], #16\n"    \
    "vldrb.8 q1, [r3], #16\n"    \
    "vldrb.8 q3, [r5], #16\n"    \
    "vldrb.8 q4, [r5], #16\n"    \
    "vldrb.8 q5, [r5], #16\n"

ES_NOINLINE static void es_block8(const es_requant *to, int32_t out_c, int32_t size, int8_t *windows,
                                  const int8_t *w, int8_t *y0, int8_t *y1)
{
    es_block8_state *const state = (es_block8_state *)(void *)&windows[2 * size];
    register void *at __asm__("r3") = state;
    register const int8_t *weight __asm__("r5") = w;
    es_begin8(state, to, out_c, windows, size, (size >> 4) - 1, y0, y1);
    at = state;
    weight = w;
    __asm__ volatile("push {r7}\n"
                     "ldrd r0, r2, [r3, #40]\n"
                     "ldrd r9, r11, [r3, #32]\n"
                     "vdup.32 q6, r0\n"
                     "vdup.32 q7, r2\n"
                     "1:\n"
                     "ldr r7, [r3, #8]\n"
                     "ldrd r1, r3, [r3]\n"
                     ES_BLOCK8_LOAD
                     "vmladav.s8 r0, q0, q2\n"
                     "vmladav.s8 r8, q1, q2\n"
                     "vmladav.s8 r2, q0, q3\n"
                     "vmladav.s8 r10, q1, q3\n"
                     "vmladav.s8 r4, q0, q4\n"
                     "vmladav.s8 r12, q1, q4\n"
                     "vmladav.s8 r6, q0, q5\n"
                     "vmladav.s8 lr, q1, q5\n"
                     "cbz r7, 3f\n"
                     "2:\n"
                     ES_BLOCK8_LOAD
                     "vmladava.s8 r0, q0, q2\n"
                     "vmladava.s8 r8, q1, q2\n"
                     "vmladava.s8 r2, q0, q3\n"
                     "vmladava.s8 r10, q1, q3\n"
                     "vmladava.s8 r4, q0, q4\n"
                     "vmladava.s8 r12, q1, q4\n"
                     "vmladava.s8 r6, q0, q5\n"
                     "vmladava.s8 lr, q1, q5\n"
                     "subs r7, r7, #1\n"
                     "bne 2b\n"
                     "3:\n"
                     ES_BLOCK8_END
                     : "+&r"(at), "+&r"(weight)
                     :
                     : "r0", "r1", "r2", "r4", "r6", "r8", "r9", "r10", "r11", "r12", "lr", "q0", "q1", "q2",
                       "q3", "q4", "q5", "q6", "q7", "cc", "memory");
}
