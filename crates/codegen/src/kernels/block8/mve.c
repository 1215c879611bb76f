/* Two windows of size bytes (by 16), one after the other, times all channels: the two pixels y0 and y1. Weights
   lie by fours of channels: 16 bytes of each in turn. */

/* Lies behind the windows, where the pointer to the second ends. */
typedef struct {
    const int8_t *window[2];
    int32_t rounds;
    const int32_t *bias;
    const int32_t *mult;
    int8_t *y[2];
    int32_t left;
    int32_t zero;
    int32_t shift;
    int32_t lo;
    int32_t hi;
} es_block8_state;

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
    state->window[0] = windows;
    state->window[1] = &windows[size];
    state->rounds = (size >> 4) - 1;
    state->bias = to->bias;
    state->mult = to->mult;
    state->y[0] = y0;
    state->y[1] = y1;
    state->left = out_c;
    state->zero = to->zero;
    state->shift = to->shift;
    state->lo = to->lo;
    state->hi = to->hi;
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
                     "ldr r7, [r3, #28]\n"
                     "vctp.32 r7\n"
                     "subs r7, r7, #4\n"
                     "str r7, [r3, #28]\n"
                     "ldrd r1, r7, [r3, #12]\n"
                     "vpstt\n"
                     "vldrwt.u32 q4, [r1], #16\n"
                     "vldrwt.u32 q5, [r7], #16\n"
                     "strd r1, r7, [r3, #12]\n"
                     "vmov q0[2], q0[0], r0, r4\n"
                     "vmov q0[3], q0[1], r2, r6\n"
                     "vmov q1[2], q1[0], r8, r12\n"
                     "vmov q1[3], q1[1], r10, lr\n"
                     "ldrd r1, r7, [r3, #20]\n"
                     "vadd.i32 q0, q0, q4\n"
                     "vadd.i32 q1, q1, q4\n"
                     "vshl.s32 q0, r11\n"
                     "vshl.s32 q1, r11\n"
                     "vrmulh.s32 q0, q0, q5\n"
                     "vrmulh.s32 q1, q1, q5\n"
                     "vadd.i32 q0, q0, r9\n"
                     "vadd.i32 q1, q1, r9\n"
                     "vmax.s32 q0, q0, q6\n"
                     "vmax.s32 q1, q1, q6\n"
                     "vmin.s32 q0, q0, q7\n"
                     "vmin.s32 q1, q1, q7\n"
                     "vpstt\n"
                     "vstrbt.32 q0, [r1], #4\n"
                     "vstrbt.32 q1, [r7], #4\n"
                     "strd r1, r7, [r3, #20]\n"
                     "ldr r7, [r3, #28]\n"
                     "cmp r7, #0\n"
                     "bgt 1b\n"
                     "pop {r7}\n"
                     : "+r"(at), "+r"(weight)
                     :
                     : "r0", "r1", "r2", "r4", "r6", "r8", "r9", "r10", "r11", "r12", "lr", "q0", "q1", "q2",
                       "q3", "q4", "q5", "q6", "q7", "cc", "memory");
}
