/* Depthwise 3x3 with stride 1 or 2, channel by channel, four outputs at a time. The scratch is a ring of three rows
   of a channel; which weights meet which of the three goes round. Where the image is high and narrow, its columns are
   the rows here (their weights are packed so), if what is written then lies where it was read. So y may be x. */

/* One row of a channel: n values that lie step bytes apart. */
static inline void es_row8_3(const int8_t *x, int32_t step, int32_t n, int16_t *to)
{
    __asm__ volatile("movs r0, #0\n"
                     "vidup.u16 q0, r0, #1\n"
                     "vmul.i16 q0, q0, %2\n"
                     "wlstp.16 lr, %3, 2f\n"
                     "1:\n"
                     "vldrb.s16 q1, [%1, q0]\n"
                     "add %1, %1, %2, lsl #3\n"
                     "vstrh.16 q1, [%0], #16\n"
                     "letp lr, 1b\n"
                     "2:\n"
                     : "+&r"(to), "+&r"(x)
                     : "r"(step), "r"(n)
                     : "r0", "q0", "q1", "lr", "cc", "memory");
}

static inline void es_clear16(int16_t *to, int32_t value, int32_t n)
{
    __asm__ volatile("vdup.16 q0, %1\n"
                     "wlstp.16 lr, %2, 2f\n"
                     "1:\n"
                     "vstrh.16 q0, [%0], #16\n"
                     "letp lr, 1b\n"
                     "2:\n"
                     : "+&r"(to)
                     : "r"(value), "r"(n)
                     : "q0", "lr", "memory");
}

/* What stands in front of and behind the loops of es_taps8_3x3: constants as vectors, weights in r3 to r11. */
#define ES_TAPS8_BEGIN               \
    "push {r7}\n"                    \
    "vdup.32 q3, r3\n"               \
    "vdup.32 q2, r4\n"               \
    "vdup.32 q6, r5\n"               \
    "mov r10, #0\n"                  \
    "vidup.u32 q4, r10, #1\n"        \
    "vshl.i32 q7, q4, #2\n"          \
    "vmul.i32 q4, q4, r6\n"          \
    "lsls r6, r6, #2\n"              \
    "vdup.32 q5, r6\n"               \
    "dlstp.32 lr, r8\n"              \
    "ldm r11, {r3, r4, r5, r6, r7, r8, r9, r10, r11}\n" \
    "1:\n"

#define ES_TAPS8_END                 \
    "vadd.i32 q0, q0, q3\n"          \
    "vrmulh.s32 q0, q0, q2\n"        \
    "vadd.i32 q0, q0, q6\n"          \
    "vqmovnb.s32 q0, q0\n"           \
    "vqmovnb.s16 q0, q0\n"           \
    "vstrb.32 q0, [r12, q4]\n"       \
    "vadd.i32 q4, q4, q5\n"          \
    "letp lr, 1b\n"                  \
    "pop {r7}\n"

#define ES_TAPS8_ROW(row, first, w0, w1, w2)    \
    "vldrh.s32 q1, [" row "], #8\n"             \
    first " q0, q1, " w0 "\n"                   \
    "vldrh.s32 q1, [" row ", #-6]\n"            \
    "vmla.s32 q0, q1, " w1 "\n"                 \
    "vldrh.s32 q1, [" row ", #-4]\n"            \
    "vmla.s32 q0, q1, " w2 "\n"

#define ES_TAPS8_ROW2(row, first, w0, w1, w2)   \
    "vldrh.s32 q1, [" row ", q7]\n"             \
    "add " row ", " row ", #2\n"                \
    first " q0, q1, " w0 "\n"                   \
    "vldrh.s32 q1, [" row ", q7]\n"             \
    "add " row ", " row ", #2\n"                \
    "vmla.s32 q0, q1, " w1 "\n"                 \
    "vldrh.s32 q1, [" row ", q7]\n"             \
    "add " row ", " row ", #12\n"               \
    "vmla.s32 q0, q1, " w2 "\n"

/* What a row of outputs of a channel is made of, in the order in which it is loaded. */
typedef struct {
    const int16_t *row[3];
    int32_t bias;
    int32_t mult;
    int32_t zero;
    int32_t step;
    int32_t n;
    const int32_t *weights;
    int8_t *y;
} es_row8_state;

#define ES_TAPS8_LOAD "ldm r12, {r0, r1, r2, r3, r4, r5, r6, r8, r11, r12}\n"

ES_NOINLINE static void es_taps8_3x3(const es_row8_state *state)
{
    register const es_row8_state *at __asm__("r12") = state;
    __asm__ volatile(ES_TAPS8_LOAD
                     ES_TAPS8_BEGIN
                     ES_TAPS8_ROW("r0", "vmul.i32", "r3", "r4", "r5")
                     ES_TAPS8_ROW("r1", "vmla.s32", "r6", "r7", "r8")
                     ES_TAPS8_ROW("r2", "vmla.s32", "r9", "r10", "r11")
                     ES_TAPS8_END
                     : "+&r"(at)
                     :
                     : "r0", "r1", "r2", "r3", "r4", "r5", "r6", "r8", "r9", "r10", "r11", "lr", "q0", "q1",
                       "q2", "q3", "q4", "q5", "q6", "q7", "cc", "memory");
}

/* By stride 2. */
ES_NOINLINE static void es_taps8_3x3_wide(const es_row8_state *state)
{
    register const es_row8_state *at __asm__("r12") = state;
    __asm__ volatile(ES_TAPS8_LOAD
                     ES_TAPS8_BEGIN
                     ES_TAPS8_ROW2("r0", "vmul.i32", "r3", "r4", "r5")
                     ES_TAPS8_ROW2("r1", "vmla.s32", "r6", "r7", "r8")
                     ES_TAPS8_ROW2("r2", "vmla.s32", "r9", "r10", "r11")
                     ES_TAPS8_END
                     : "+&r"(at)
                     :
                     : "r0", "r1", "r2", "r3", "r4", "r5", "r6", "r8", "r9", "r10", "r11", "lr", "q0", "q1",
                       "q2", "q3", "q4", "q5", "q6", "q7", "cc", "memory");
}

static void es_depthwise8_3x3(const es_conv *p, const int8_t *x, const int8_t *w, int8_t *y, void *scratch)
{
    const int32_t turned = ((p->stride_h == 1) && (p->stride_w == 1) && (p->in_w == p->out_w) &&
                            (p->out_h > p->out_w) && ((p->in_w * p->in_c) < 9362)) ? 1 : 0;
    const int32_t c = p->in_c;
    const int32_t in_n = (turned != 0) ? p->in_h : p->in_w;
    const int32_t in_rows = (turned != 0) ? p->in_w : p->in_h;
    const int32_t out_n = (turned != 0) ? p->out_h : p->out_w;
    const int32_t out_rows = (turned != 0) ? p->out_w : p->out_h;
    const int32_t from = (turned != 0) ? p->pad_top : p->pad_left;
    const int32_t above = (turned != 0) ? p->pad_left : p->pad_top;
    const int32_t step = (turned != 0) ? (p->in_w * c) : c;
    const int32_t x_row = (turned != 0) ? c : (p->in_w * c);
    const int32_t y_row = (turned != 0) ? c : (p->out_w * c);
    const int32_t width = ((out_n - 1) * p->stride_w) + 3;
    const int32_t n = ((in_n + from) < width) ? in_n : (width - from);
    int16_t *const ring = (int16_t *)scratch;
    es_row8_state state;
    int32_t channel;
    int32_t i;
    es_clear16(ring, p->in_zero, 3 * width);
    for (i = 0; i < 3; i++) {
        state.row[i] = &ring[i * width];
    }
    state.zero = p->to.zero;
    state.step = step;
    state.n = out_n;
    for (channel = 0; channel < c; channel++) {
        const int8_t *in = &x[channel];
        int32_t next = -above;
        int32_t end = 3 - above;
        int32_t slot = 0;
        int32_t row;
        int32_t weights[18];
        for (i = 0; i < 9; i++) {
            weights[i] = (int32_t)((uint32_t)w[i] << (uint32_t)p->to.shift);
            weights[i + 9] = weights[i];
        }
        w = &w[9];
        state.bias = (int32_t)((uint32_t)p->to.bias[channel] << (uint32_t)p->to.shift);
        state.mult = p->to.mult[channel];
        state.y = &y[channel];
        for (row = 0; row < out_rows; row++) {
            for (; next < end; next++) {
                int16_t *const to = &ring[(slot * width) + from];
                if ((next >= 0) && (next < in_rows)) {
                    es_row8_3(in, step, n, to);
                    in = &in[x_row];
                } else {
                    es_clear16(to, p->in_zero, n);
                }
                slot = (slot == 2) ? 0 : (slot + 1);
            }
            state.weights = &weights[(slot == 0) ? 0 : (9 - (3 * slot))];
            if (p->stride_w == 1) {
                es_taps8_3x3(&state);
            } else {
                es_taps8_3x3_wide(&state);
            }
            state.y = &state.y[y_row];
            end += p->stride_h;
        }
    }
    ES_BOUND(&p->to, y, p->out_h * p->out_w * c);
}
