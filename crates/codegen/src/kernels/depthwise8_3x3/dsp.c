/* Depthwise 3x3 with stride 1 or 2, channel by channel. The scratch is a ring of three rows of a channel,
   word by word in turn: a word holds two columns. Which weights meet which of the three goes round instead.
   Where the image is high and narrow, its columns are the rows here (their weights are packed so), if what
   is written then lies where it was read. So y may be x. */

/* One row of a channel: n values, by pairs that lie 12 bytes apart. */
static inline void es_row8_3(const int8_t *x, int32_t step, int32_t n, uint32_t *to)
{
    int32_t pairs;
    int32_t a;
    int32_t b;
    __asm__ volatile("lsrs %[pairs], %[n], #1\n"
                     "beq 3f\n"
                     "lsls %[a], %[pairs], #31\n"
                     "bmi 2f\n"
                     "1:\n"
                     "ldrsb %[a], [%[x]]\n"
                     "ldrsb %[b], [%[x], %[step]]\n"
                     "add %[x], %[x], %[step], lsl #1\n"
                     "strh %[b], [%[to], #2]\n"
                     "strh %[a], [%[to]], #12\n"
                     "2:\n"
                     "ldrsb %[a], [%[x]]\n"
                     "ldrsb %[b], [%[x], %[step]]\n"
                     "add %[x], %[x], %[step], lsl #1\n"
                     "strh %[b], [%[to], #2]\n"
                     "strh %[a], [%[to]], #12\n"
                     "subs %[pairs], %[pairs], #2\n"
                     "bgt 1b\n"
                     "3:\n"
                     "lsls %[a], %[n], #31\n"
                     "bpl 4f\n"
                     "ldrsb %[a], [%[x]]\n"
                     "strh %[a], [%[to]]\n"
                     "4:\n"
                     : [x] "+&r"(x), [to] "+&r"(to), [pairs] "=&r"(pairs), [a] "=&r"(a), [b] "=&r"(b)
                     : [n] "r"(n), [step] "r"(step)
                     : "cc", "memory");
}

/* What a row of outputs of a channel is made of, in the order in which it is loaded. */
typedef struct {
    const uint32_t *ring;
    int8_t *y;
    const uint32_t *weights;
    int32_t step;
    int32_t mult;
    int32_t zero;
    const uint32_t *last;
    const uint32_t *end;
    int32_t bias;
} es_row8_state;

#define ES_TAPS8_BEGIN                                \
    "push {r7}\n"                                     \
    "ldm r12, {r0, r1, r2, r3, r8, r9, r10, r11}\n"   \
    "ldr r12, [r12, #32]\n"                           \
    "mov r14, r3\n"                                   \
    "push {r8, r9, r10, r11}\n"                       \
    "ldm r2, {r2, r3, r4, r5, r6, r7}\n"

/* By stride 1, two at a time to last; what is left to end is one. */
ES_NOINLINE static void es_taps8_3x3(const es_row8_state *state)
{
    register const es_row8_state *at __asm__("r12") = state;
    __asm__ volatile(ES_TAPS8_BEGIN
                     "cmp r0, r10\n"
                     "beq 2f\n"
                     "1:\n"
                     "ldr r8, [r0], #12\n"
                     "ldr r9, [r0]\n"
                     "smlad r10, r8, r2, r12\n"
                     "smlatb r11, r8, r2, r12\n"
                     "ldr r8, [r0, #-8]\n"
                     "smlabt r10, r9, r3, r10\n"
                     "smlad r11, r9, r3, r11\n"
                     "ldr r9, [r0, #4]\n"
                     "smlad r10, r8, r4, r10\n"
                     "smlatb r11, r8, r4, r11\n"
                     "ldr r8, [r0, #-4]\n"
                     "smlabt r10, r9, r5, r10\n"
                     "smlad r11, r9, r5, r11\n"
                     "ldr r9, [r0, #8]\n"
                     "smlad r10, r8, r6, r10\n"
                     "smlatb r11, r8, r6, r11\n"
                     "smlabt r10, r9, r7, r10\n"
                     "smlad r11, r9, r7, r11\n"
                     "ldrd r8, r9, [sp]\n"
                     "smmlar r10, r10, r8, r9\n"
                     "smmlar r11, r11, r8, r9\n"
                     "ldr r8, [sp, #8]\n"
                     "ssat r10, #8, r10\n"
                     "ssat r11, #8, r11\n"
                     "cmp r0, r8\n"
                     "strb r11, [r1, r14]\n"
                     "strb r10, [r1]\n"
                     "add r1, r1, r14, lsl #1\n"
                     "bne 1b\n"
                     "2:\n"
                     "ldr r8, [sp, #12]\n"
                     "cmp r0, r8\n"
                     "beq 3f\n"
                     "str r8, [sp, #8]\n"
                     "mov r14, #0\n"
                     "b 1b\n"
                     "3:\n"
                     "add sp, sp, #16\n"
                     "pop {r7}\n"
                     : "+&r"(at)
                     :
                     : "r0", "r1", "r2", "r3", "r4", "r5", "r6", "r8", "r9", "r10", "r11", "r14", "cc",
                       "memory");
}

/* By stride 2, to last. */
ES_NOINLINE static void es_taps8_3x3_wide(const es_row8_state *state)
{
    register const es_row8_state *at __asm__("r12") = state;
    __asm__ volatile(ES_TAPS8_BEGIN
                     "1:\n"
                     "ldr r8, [r0], #12\n"
                     "ldr r9, [r0]\n"
                     "smlad r10, r8, r2, r12\n"
                     "ldr r8, [r0, #-8]\n"
                     "smlabt r10, r9, r3, r10\n"
                     "ldr r9, [r0, #4]\n"
                     "smlad r10, r8, r4, r10\n"
                     "ldr r8, [r0, #-4]\n"
                     "smlabt r10, r9, r5, r10\n"
                     "ldr r9, [r0, #8]\n"
                     "smlad r10, r8, r6, r10\n"
                     "smlabt r10, r9, r7, r10\n"
                     "ldrd r8, r9, [sp]\n"
                     "smmlar r10, r10, r8, r9\n"
                     "ldr r8, [sp, #8]\n"
                     "ssat r10, #8, r10\n"
                     "cmp r0, r8\n"
                     "strb r10, [r1]\n"
                     "add r1, r1, r14\n"
                     "bne 1b\n"
                     "add sp, sp, #16\n"
                     "pop {r7}\n"
                     : "+&r"(at)
                     :
                     : "r0", "r1", "r2", "r3", "r4", "r5", "r6", "r8", "r9", "r10", "r11", "r14", "cc",
                       "memory");
}

/* The three rows of weights of a channel as six words of pairs, twice, shifted. */
static void es_weights8_3x3(const int8_t *w, uint32_t shift, uint32_t *to)
{
    int32_t i;
    for (i = 0; i < 3; i++) {
        uint32_t a = es_even(es_word(&w[4 * i]));
        uint32_t b = es_odd(es_word(&w[4 * i]));
        if (shift != 0u) {
            a = ((a << shift) & 0xffffu) | ((a & 0xffff0000u) << shift);
            b = ((b << shift) & 0xffffu) | ((b & 0xffff0000u) << shift);
        }
        to[2 * i] = a;
        to[(2 * i) + 1] = b;
        to[(2 * i) + 6] = a;
        to[(2 * i) + 7] = b;
    }
}

static void es_depthwise8_3x3(const es_conv *p, const int8_t *x, const int8_t *w, int8_t *y, void *scratch)
{
    const int32_t turned = ((p->stride_h == 1) && (p->stride_w == 1) && (p->in_w == p->out_w) &&
                            (p->out_h > p->out_w)) ? 1 : 0;
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
    const int32_t words = ((p->stride_w == 1) ? ((out_n + 1) >> 1) : out_n) + 1;
    const int32_t room = (2 * words) - from;
    const int32_t single = ((from & 1) != 0) ? 1 : 0;
    const int32_t n = ((in_n < room) ? in_n : room) - single;
    const int32_t start = 3 * ((from + 1) >> 1);
    const uint32_t empty = ((uint32_t)p->in_zero & 0xffffu) * 0x00010001u;
    uint32_t *const ring = (uint32_t *)scratch;
    es_row8_state state;
    int32_t channel;
    int32_t i;
    for (i = 0; i < (3 * words); i++) {
        ring[i] = empty;
    }
    state.ring = ring;
    state.step = step;
    state.zero = p->to.zero;
    state.last = &ring[3 * ((p->stride_w == 1) ? (out_n >> 1) : out_n)];
    state.end = &ring[3 * (words - 1)];
    for (channel = 0; channel < c; channel++) {
        const int8_t *in = &x[channel];
        int32_t next = -above;
        int32_t end = 3 - above;
        int32_t slot = 0;
        int32_t row;
        uint32_t weights[12];
        es_weights8_3x3(&w[12 * channel], (uint32_t)p->to.shift, weights);
        state.y = &y[channel];
        state.mult = p->to.mult[channel];
        state.bias = (int32_t)((uint32_t)p->to.bias[channel] << (uint32_t)p->to.shift);
        for (row = 0; row < out_rows; row++) {
            for (; next < end; next++) {
                uint32_t *const to = &ring[slot];
                if ((next >= 0) && (next < in_rows)) {
                    const int8_t *first = in;
                    if (single != 0) {
                        const uint16_t value = (uint16_t)*first;
                        __builtin_memcpy((uint8_t *)&to[start - 3] + 2, &value, 2u);
                        first = &first[step];
                    }
                    es_row8_3(first, step, n, &to[start]);
                    in = &in[x_row];
                } else {
                    for (i = 0; i < (3 * words); i += 3) {
                        to[i] = empty;
                    }
                }
                slot = (slot == 2) ? 0 : (slot + 1);
            }
            state.weights = &weights[(slot == 0) ? 0 : (6 - (2 * slot))];
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
