/* y = x * scale. */
static void es_dequantize16(int32_t count, float scale, const int16_t *x, float *y)
{
    int32_t i;
    for (i = 0; i < count; i++) {
        y[i] = (float)x[i] * scale;
    }
}
