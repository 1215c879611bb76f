/* Two windows of k numbers, in turn, times four channels, in turn: the sums of the first, then of the second.
   Returns the weights behind. */
static const float *es_tile_f32(int32_t k, const float *x, const float *w, float sum[8])
{
    float a0 = 0.0f;
    float a1 = 0.0f;
    float a2 = 0.0f;
    float a3 = 0.0f;
    float b0 = 0.0f;
    float b1 = 0.0f;
    float b2 = 0.0f;
    float b3 = 0.0f;
    for (; k > 0; k--) {
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
    return w;
}
