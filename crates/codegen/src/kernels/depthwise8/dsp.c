/* Products of pairs over rows that lie gap bytes apart behind their pairs. */
static inline int32_t es_pairs8(const int16_t *x, int32_t gap, const int16_t *w, int32_t pairs, int32_t rows,
                                int32_t sum)
{
    int32_t i;
    uint32_t a;
    uint32_t b;
    __asm__("1:\n"
            "mov %[i], %[pairs]\n"
            "2:\n"
            "ldr %[a], [%[x]], #4\n"
            "ldr %[b], [%[w]], #4\n"
            "subs %[i], %[i], #1\n"
            "smlad %[sum], %[a], %[b], %[sum]\n"
            "bne 2b\n"
            "subs %[rows], %[rows], #1\n"
            "add %[x], %[x], %[gap]\n"
            "bne 1b\n"
            : [x] "+&r"(x), [w] "+&r"(w), [rows] "+&r"(rows), [sum] "+&r"(sum), [i] "=&r"(i), [a] "=&r"(a),
              [b] "=&r"(b)
            : [pairs] "r"(pairs), [gap] "r"(gap)
            : "cc", "memory");
    return sum;
}

/* Any depthwise convolution, channel by channel, two taps at a time. The scratch is a ring of the rows that a window
   spans, with their padding, so that y may be x; behind it lie the weights of a channel by pairs, with zeros between
   the taps of a dilation. */
static void es_depthwise8(const es_conv *p, const int8_t *x, const int8_t *w, int8_t *y, void *scratch)
{
    const int32_t rows = ((p->kernel_h - 1) * p->dilation_h) + 1;
    const int32_t pairs = (((p->kernel_w - 1) * p->dilation_w) + 2) >> 1;
    const int32_t width = (((p->out_w - 1) * p->stride_w) + (2 * pairs) + 1) & ~1;
    const int32_t channels = p->in_c;
    const int32_t first = p->pad_left;
    const int32_t last = ((first + p->in_w) < width) ? (first + p->in_w) : width;
    int16_t *const ring = (int16_t *)scratch;
    int16_t *const weights = &ring[rows * width];
    int32_t c;
    int32_t i;
    for (i = 0; i < (rows * width); i++) {
        ring[i] = (int16_t)p->in_zero;
    }
    for (i = 0; i < (2 * pairs * p->kernel_h); i++) {
        weights[i] = 0;
    }
    for (c = 0; c < channels; c++) {
        const int32_t mult = p->to.mult[c];
        int8_t *out = &y[c];
        int32_t next = -p->pad_top;
        int32_t slot = 0;
        int32_t oy;
        for (i = 0; i < (p->kernel_h * p->kernel_w); i++) {
            weights[((i / p->kernel_w) * 2 * pairs) + ((i % p->kernel_w) * p->dilation_w)] = *w;
            w++;
        }
        for (oy = 0; oy < p->out_h; oy++) {
            const int32_t end = (oy * p->stride_h) - p->pad_top + rows;
            int32_t ox;
            for (; next < end; next++) {
                int16_t *const row = &ring[slot * width];
                if ((next < 0) || (next >= p->in_h)) {
                    for (i = first; i < last; i++) {
                        row[i] = (int16_t)p->in_zero;
                    }
                } else {
                    const int8_t *from = &x[(next * p->in_w * channels) + c];
                    for (i = first; i < last; i++) {
                        row[i] = *from;
                        from = &from[channels];
                    }
                }
                slot++;
                if (slot == rows) {
                    slot = 0;
                }
            }
            for (ox = 0; ox < p->out_w; ox++) {
                /* Taps in the rows from slot to the end of the ring, and in those from its start. */
                const int32_t before = (rows - slot + p->dilation_h - 1) / p->dilation_h;
                const int32_t rest = p->kernel_h - before;
                const int32_t gap = 2 * ((p->dilation_h * width) - (2 * pairs));
                const int16_t *const at = &ring[ox * p->stride_w];
                int32_t acc = es_pairs8(&at[slot * width], gap, weights, pairs, before, p->to.bias[c]);
                if (rest > 0) {
                    const int32_t start = slot + (before * p->dilation_h) - rows;
                    acc = es_pairs8(&at[start * width], gap, &weights[2 * pairs * before], pairs, rest, acc);
                }
                *out = es_requantise(&p->to, acc, mult);
                out = &out[channels];
            }
        }
    }
    ES_BOUND(&p->to, y, p->out_h * p->out_w * channels);
}
