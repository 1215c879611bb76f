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
        for (i = 0; i < k; i++) {
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
