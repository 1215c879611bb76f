/* n numbers times four channels, in turn. Returns the weights behind. */
static const float *es_row_f32(int32_t n, const float *x, const float *w, float sum[4])
{
    float s0 = 0.0f;
    float s1 = 0.0f;
    float s2 = 0.0f;
    float s3 = 0.0f;
    for (; n > 0; n--) {
        const float v = *x;
        s0 += v * w[0];
        s1 += v * w[1];
        s2 += v * w[2];
        s3 += v * w[3];
        x++;
        w = &w[4];
    }
    sum[0] = s0;
    sum[1] = s1;
    sum[2] = s2;
    sum[3] = s3;
    return w;
}
