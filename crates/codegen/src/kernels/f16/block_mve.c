/* Two windows of k halves times all channels, eight at a time. Weights lie by eights of channels, a number of each in
   turn. Products and sums are of halves. */
ES_NOINLINE static void es_block_f16(const float *bias, float lo, float hi, int32_t out_c, int32_t k, const es_half *a,
                                     const es_half *w, es_half *y0, es_half *y1)
{
    const es_half *const b = &a[k];
    int32_t c;
    int32_t i;
    for (c = 0; c < out_c; c += 8) {
        const int32_t some = ((out_c - c) < 8) ? (out_c - c) : 8;
        float16x8_t s = vdupq_n_f16((es_half)0.0f);
        float16x8_t t = s;
        es_half sums[16];
        for (i = 0; i < k; i++) {
            const float16x8_t v = vld1q_f16(w);
            s = vfmaq_n_f16(s, v, a[i]);
            t = vfmaq_n_f16(t, v, b[i]);
            w = &w[8];
        }
        vst1q_f16(sums, s);
        vst1q_f16(&sums[8], t);
        for (i = 0; i < some; i++) {
            const float u = (float)sums[i] + bias[c + i];
            const float v = (float)sums[i + 8] + bias[c + i];
            const float below = (u < lo) ? lo : u;
            const float under = (v < lo) ? lo : v;
            y0[c + i] = (es_half)((below > hi) ? hi : below);
            y1[c + i] = (es_half)((under > hi) ? hi : under);
        }
    }
}
