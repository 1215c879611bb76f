/* Bytes of the weights of so many channels. */
static inline int32_t es_block8_bytes(int32_t channels, int32_t k)
{
    return channels * k;
}

/* Two windows of k bytes, one after the other, times all channels: the two pixels y0 and y1. */
ES_NOINLINE static void es_block8(const es_requant *to, int32_t out_c, int32_t k, const int8_t *a,
                                  const int8_t *w, int8_t *y0, int8_t *y1)
{
    const int8_t *const b = &a[k];
    int32_t c;
    int32_t i;
    for (c = 0; c < (out_c - 1); c += 2) {
        const int8_t *const w1 = &w[k];
        int32_t a0 = to->bias[c];
        int32_t a1 = to->bias[c + 1];
        int32_t b0 = a0;
        int32_t b1 = a1;
        i = 0;
#if defined(__riscv) || defined(ES_BY_FOUR)
        /* Addresses by constants: a step of four costs less than of one. */
        for (; i < (k - 3); i += 4) {
            const int8_t *const xa = &a[i];
            const int8_t *const xb = &b[i];
            const int8_t *const u0 = &w[i];
            const int8_t *const u1 = &w1[i];
            a0 += (xa[0] * u0[0]) + (xa[1] * u0[1]) + (xa[2] * u0[2]) + (xa[3] * u0[3]);
            a1 += (xa[0] * u1[0]) + (xa[1] * u1[1]) + (xa[2] * u1[2]) + (xa[3] * u1[3]);
            b0 += (xb[0] * u0[0]) + (xb[1] * u0[1]) + (xb[2] * u0[2]) + (xb[3] * u0[3]);
            b1 += (xb[0] * u1[0]) + (xb[1] * u1[1]) + (xb[2] * u1[2]) + (xb[3] * u1[3]);
        }
#endif
        for (; i < k; i++) {
            a0 += (int32_t)a[i] * w[i];
            a1 += (int32_t)a[i] * w1[i];
            b0 += (int32_t)b[i] * w[i];
            b1 += (int32_t)b[i] * w1[i];
        }
        w = &w1[k];
        y0[c] = es_requantise(to, a0, to->mult[c]);
        y1[c] = es_requantise(to, b0, to->mult[c]);
        y0[c + 1] = es_requantise(to, a1, to->mult[c + 1]);
        y1[c + 1] = es_requantise(to, b1, to->mult[c + 1]);
    }
    if (c < out_c) {
        int32_t a0 = to->bias[c];
        int32_t b0 = a0;
        for (i = 0; i < k; i++) {
            a0 += (int32_t)a[i] * w[i];
            b0 += (int32_t)b[i] * w[i];
        }
        y0[c] = es_requantise(to, a0, to->mult[c]);
        y1[c] = es_requantise(to, b0, to->mult[c]);
    }
}
