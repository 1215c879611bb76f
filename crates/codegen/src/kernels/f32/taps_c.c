/* Four channels of rows times columns taps: steps to the next column and row of x, and to the next tap and row of w,
   in numbers. */
static void es_taps_f32(int32_t rows, int32_t columns, const float *x, const int32_t step[4], const float *w,
                        float sum[4])
{
    float s0 = sum[0];
    float s1 = sum[1];
    float s2 = sum[2];
    float s3 = sum[3];
    for (; rows > 0; rows--) {
        const float *v = x;
        const float *u = w;
        int32_t i;
        for (i = columns; i > 0; i--) {
            s0 += v[0] * u[0];
            s1 += v[1] * u[1];
            s2 += v[2] * u[2];
            s3 += v[3] * u[3];
            v = &v[step[0]];
            u = &u[step[2]];
        }
        x = &x[step[1]];
        w = &w[step[3]];
    }
    sum[0] = s0;
    sum[1] = s1;
    sum[2] = s2;
    sum[3] = s3;
}
