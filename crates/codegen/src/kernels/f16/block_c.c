/* Two windows of k halves times all channels. Weights lie by eights of channels, a number of each in turn. Products and
   sums are of floats. */
ES_NOINLINE static void es_block_f16(const float *bias, float lo, float hi, int32_t out_c, int32_t k, const es_half *a,
                                     const es_half *w, es_half *y0, es_half *y1)
{
    const es_half *const b = &a[k];
    int32_t c;
    int32_t i;
    int32_t lane;
    for (c = 0; c < out_c; c += 8) {
        for (lane = 0; lane < 8; lane += 2) {
            float s0 = 0.0f;
            float s1 = 0.0f;
            float t0 = 0.0f;
            float t1 = 0.0f;
            const es_half *u = &w[lane];
            if ((c + lane) >= out_c) {
                break;
            }
            for (i = 0; i < k; i++) {
                const float v0 = (float)u[0];
                const float v1 = (float)u[1];
                const float x0 = (float)a[i];
                const float x1 = (float)b[i];
                s0 += x0 * v0;
                s1 += x0 * v1;
                t0 += x1 * v0;
                t1 += x1 * v1;
                u = &u[8];
            }
            for (i = 0; (i < 2) && ((c + lane + i) < out_c); i++) {
                const float s = ((i == 0) ? s0 : s1) + bias[c + lane + i];
                const float t = ((i == 0) ? t0 : t1) + bias[c + lane + i];
                const float below = (s < lo) ? lo : s;
                const float under = (t < lo) ? lo : t;
                y0[c + lane + i] = (es_half)((below > hi) ? hi : below);
                y1[c + lane + i] = (es_half)((under > hi) ? hi : under);
            }
        }
        w = &w[8 * k];
    }
}
