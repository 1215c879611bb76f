/* Floats to halves; y may be x. */
static void es_to_half(int32_t count, const float *x, void *to)
{
    es_half *const y = (es_half *)to;
    int32_t i;
    for (i = 0; i < count; i++) {
        y[i] = (es_half)x[i];
    }
}
