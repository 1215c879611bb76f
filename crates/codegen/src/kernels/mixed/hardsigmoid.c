/* slope * x + add between 0 and 1; y may be x. */
static void es_hardsigmoid_f32(int32_t count, const float *x, float slope, float add, float *y)
{
    int32_t i;
    for (i = 0; i < count; i++) {
        float v = (slope * x[i]) + add;
        v = (v < 0.0f) ? 0.0f : v;
        y[i] = (v > 1.0f) ? 1.0f : v;
    }
}
