/* Two windows of k numbers, in turn, times all channels: the two pixels y0 and y1. Weights lie by fours of
   channels, a number of each in turn. */
ES_NOINLINE static void es_block_f32(const float *bias, float lo, float hi, int32_t out_c, int32_t k,
                                     const float *windows, const float *w, float *y0, float *y1)
{
    int32_t c;
    int32_t i;
    for (c = 0; c < out_c; c += 4) {
        const int32_t some = ((out_c - c) < 4) ? (out_c - c) : 4;
        float sum[8];
        w = es_tile_f32(k, windows, w, sum);
        for (i = 0; i < some; i++) {
            y0[c + i] = es_bounded(sum[i] + bias[c + i], lo, hi);
            y1[c + i] = es_bounded(sum[i + 4] + bias[c + i], lo, hi);
        }
    }
}
