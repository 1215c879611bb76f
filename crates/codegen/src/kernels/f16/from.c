/* Halves to floats. */
static void es_from_half(int32_t count, const void *from, float *y)
{
    const es_half *const x = (const es_half *)from;
    int32_t i;
    for (i = 0; i < count; i++) {
        y[i] = (float)x[i];
    }
}
