/* y = (x - zero) * scale. */
static void es_dequantize8(int32_t count, float scale, int32_t zero, const int8_t *x, float *y)
{
    int32_t i;
    for (i = 0; i < count; i++) {
        y[i] = (float)((int32_t)x[i] - zero) * scale;
    }
}
