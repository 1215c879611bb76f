/* Bytes of the weights of so many channels. */
static inline int32_t es_block8_w4_bytes(int32_t channels, int32_t k)
{
    return channels * ((k + 1) >> 1);
}

/* es_block8 with weights of 4 bits, taken 16 times: a byte is two of them, the first in its high half. */
ES_NOINLINE static void es_block8_w4(const es_requant *to, int32_t out_c, int32_t k, const int8_t *a,
                                     const int8_t *w, int8_t *y0, int8_t *y1)
{
    const int8_t *const b = &a[k];
    int32_t c;
    int32_t i;
    for (c = 0; c < out_c; c++) {
        int32_t acc0 = to->bias[c];
        int32_t acc1 = acc0;
        for (i = 0; i < k; i += 2) {
            const uint8_t both = (uint8_t)*w;
            const int32_t first = (int32_t)(int8_t)(both & 0xf0u);
            const int32_t second = (int32_t)(int8_t)(uint8_t)(both << 4u);
            acc0 += first * a[i];
            acc1 += first * b[i];
            if ((i + 1) < k) {
                acc0 += second * a[i + 1];
                acc1 += second * b[i + 1];
            }
            w++;
        }
        y0[c] = es_requantise(to, acc0, to->mult[c]);
        y1[c] = es_requantise(to, acc1, to->mult[c]);
    }
}
