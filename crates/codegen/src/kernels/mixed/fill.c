/* The same number everywhere. */
static void es_fill_f32(int32_t count, float v, float *y)
{
    int32_t i;
    for (i = 0; i < count; i++) {
        y[i] = v;
    }
}
