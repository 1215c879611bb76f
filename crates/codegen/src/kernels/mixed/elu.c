/* scale * x, or scale * alpha * (e^x - 1) below 0; y may be x. */
static void es_elu_f32(int32_t count, const float *x, float alpha, float scale, float *y)
{
    int32_t i;
    for (i = 0; i < count; i++) {
        const float v = x[i];
        y[i] = scale * ((v < 0.0f) ? (alpha * (es_exp_of(v) - 1.0f)) : v);
    }
}
