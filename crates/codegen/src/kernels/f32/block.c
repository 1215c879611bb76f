/* Two windows of k numbers, in turn, times all channels: the two pixels y0 and y1. Weights lie by fours of
   channels, a number of each in turn. */
ES_NOINLINE static void es_block_f32(const float *bias, float lo, float hi, int32_t out_c, int32_t k,
                                     const float *windows, const float *w, float *y0, float *y1)
{
    int32_t c;
    int32_t i;
    for (c = 0; c < out_c; c += 4) {
        const int32_t some = ((out_c - c) < 4) ? (out_c - c) : 4;
        const float *x = windows;
        float a0 = 0.0f;
        float a1 = 0.0f;
        float a2 = 0.0f;
        float a3 = 0.0f;
        float b0 = 0.0f;
        float b1 = 0.0f;
        float b2 = 0.0f;
        float b3 = 0.0f;
        float sum[8];
        for (i = k; i > 0; i--) {
            const float xa = x[0];
            const float xb = x[1];
            a0 += xa * w[0];
            b0 += xb * w[0];
            a1 += xa * w[1];
            b1 += xb * w[1];
            a2 += xa * w[2];
            b2 += xb * w[2];
            a3 += xa * w[3];
            b3 += xb * w[3];
            x = &x[2];
            w = &w[4];
        }
        sum[0] = a0;
        sum[1] = a1;
        sum[2] = a2;
        sum[3] = a3;
        sum[4] = b0;
        sum[5] = b1;
        sum[6] = b2;
        sum[7] = b3;
        for (i = 0; i < some; i++) {
            y0[c + i] = es_bounded(sum[i] + bias[c + i], lo, hi);
            y1[c + i] = es_bounded(sum[i + 4] + bias[c + i], lo, hi);
        }
    }
}
