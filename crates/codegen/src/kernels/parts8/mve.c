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

/* Sums of four channels and two pixels, in r0, r2, r4, r6 and r8, r10, r12, lr, to int8. */
#define ES_BLOCK8_END                    \
    "ldr r7, [r3, #28]\n"                \
    "vctp.32 r7\n"                       \
    "subs r7, r7, #4\n"                  \
    "str r7, [r3, #28]\n"                \
    "ldrd r1, r7, [r3, #12]\n"           \
    "vpstt\n"                            \
    "vldrwt.u32 q4, [r1], #16\n"         \
    "vldrwt.u32 q5, [r7], #16\n"         \
    "strd r1, r7, [r3, #12]\n"           \
    "vmov q0[2], q0[0], r0, r4\n"        \
    "vmov q0[3], q0[1], r2, r6\n"        \
    "vmov q1[2], q1[0], r8, r12\n"       \
    "vmov q1[3], q1[1], r10, lr\n"       \
    "ldrd r1, r7, [r3, #20]\n"           \
    "vadd.i32 q0, q0, q4\n"              \
    "vadd.i32 q1, q1, q4\n"              \
    "vshl.s32 q0, r11\n"                 \
    "vshl.s32 q1, r11\n"                 \
    "vrmulh.s32 q0, q0, q5\n"            \
    "vrmulh.s32 q1, q1, q5\n"            \
    "vadd.i32 q0, q0, r9\n"              \
    "vadd.i32 q1, q1, r9\n"              \
    "vmax.s32 q0, q0, q6\n"              \
    "vmax.s32 q1, q1, q6\n"              \
    "vmin.s32 q0, q0, q7\n"              \
    "vmin.s32 q1, q1, q7\n"              \
    "vpstt\n"                            \
    "vstrbt.32 q0, [r1], #4\n"           \
    "vstrbt.32 q1, [r7], #4\n"           \
    "strd r1, r7, [r3, #20]\n"           \
    "ldr r7, [r3, #28]\n"                \
    "cmp r7, #0\n"                       \
    "bgt 1b\n"                           \
    "pop {r7}\n"

/* What the state is for windows of size bytes in so many rounds. */
static void es_begin8(es_block8_state *state, const es_requant *to, int32_t out_c, const int8_t *windows,
                      int32_t size, int32_t rounds, int8_t *y0, int8_t *y1)
{
    state->window[0] = windows;
    state->window[1] = &windows[size];
    state->rounds = rounds;
    state->bias = to->bias;
    state->mult = to->mult;
    state->y[0] = y0;
    state->y[1] = y1;
    state->left = out_c;
    state->zero = to->zero;
    state->shift = to->shift;
    state->lo = to->lo;
    state->hi = to->hi;
}
