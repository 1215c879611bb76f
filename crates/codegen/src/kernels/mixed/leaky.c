/* x, or slope * x below 0; y may be x. */
static void es_leaky_f32(int32_t count, const float *x, float slope, float *y)
{
    int32_t i;
    for (i = 0; i < count; i++) {
        y[i] = (x[i] < 0.0f) ? (slope * x[i]) : x[i];
    }
}
