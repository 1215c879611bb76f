/* The mean of what of each window lies inside: requantise(sum - n * zero) for n numbers by the multiplier
   n - 1, or by the first if counted is 0 (padding counts, or there is none); no bias. y lies as in es_maxpool8. */
typedef struct {
    es_pool at;
    int32_t in_zero;
    int32_t counted;
    es_requant to;
} es_avgpool;

static void es_avgpool8(const es_avgpool *p, const int8_t *x, int8_t *y)
{
    const int32_t c = p->at.in_c;
    int8_t *out = y;
    int32_t oy;
    int32_t ox;
    int32_t i;
    int32_t ky;
    int32_t kx;
    for (oy = 0; oy < p->at.out_h; oy++) {
        int32_t top;
        const int32_t rows =
            es_clip((oy * p->at.stride_h) - p->at.pad_top, p->at.kernel_h, p->at.in_h, &top);
        for (ox = 0; ox < p->at.out_w; ox++) {
            int32_t left;
            const int32_t columns =
                es_clip((ox * p->at.stride_w) - p->at.pad_left, p->at.kernel_w, p->at.in_w, &left);
            const int8_t *const start = &x[((top * p->at.in_w) + left) * c];
            const int32_t n = rows * columns;
            const int32_t mult = p->to.mult[((p->counted != 0) && (n > 0)) ? (n - 1) : 0];
            i = 0;
            /* Four channels at a time, in sums of 16 bits. */
            for (; (n < 256) && (i <= (c - 4)); i += 4) {
                const int8_t *row = &start[i];
                uint32_t even = 0u;
                uint32_t odd = 0u;
                for (ky = 0; ky < rows; ky++) {
                    const int8_t *at = row;
                    for (kx = 0; kx < columns; kx++) {
                        __asm__("sxtab16 %0, %0, %2\n"
                                "sxtab16 %1, %1, %2, ror #8\n"
                                : "+&r"(even), "+&r"(odd)
                                : "r"(es_word(at)));
                        at = &at[c];
                    }
                    row = &row[p->at.in_w * c];
                }
                out[0] = es_requantise(&p->to, (int32_t)(int16_t)(even & 0xffffu) - (n * p->in_zero), mult);
                out[1] = es_requantise(&p->to, (int32_t)(int16_t)(odd & 0xffffu) - (n * p->in_zero), mult);
                out[2] = es_requantise(&p->to, (int32_t)(int16_t)(even >> 16u) - (n * p->in_zero), mult);
                out[3] = es_requantise(&p->to, (int32_t)(int16_t)(odd >> 16u) - (n * p->in_zero), mult);
                out = &out[4];
            }
            for (; i < c; i++) {
                const int8_t *row = &start[i];
                int32_t sum = -n * p->in_zero;
                for (ky = 0; ky < rows; ky++) {
                    const int8_t *at = row;
                    for (kx = 0; kx < columns; kx++) {
                        sum += *at;
                        at = &at[c];
                    }
                    row = &row[p->at.in_w * c];
                }
                *out = es_requantise(&p->to, sum, mult);
                out++;
            }
        }
    }
    ES_BOUND(&p->to, y, p->at.out_h * p->at.out_w * c);
}
