/* y = x / scale, rounded to even, plus zero, within int8; zero for what is no number. */
static void es_quantize8(int32_t count, float scale, int32_t zero, const float *x, int8_t *y)
{
    int32_t i;
    for (i = 0; i < count; i++) {
        const float v = x[i] / scale;
        float size = (v < 0.0f) ? -v : v;
        int32_t q;
        if (size >= 512.0f) {
            size = 512.0f;
        } else if (!(size < 512.0f)) {
            size = 0.0f;
        } else {
            /* Within the range of int32_t. */
        }
        q = (int32_t)size;
        size -= (float)q;
        if ((size > 0.5f) || ((size >= 0.5f) && ((q & 1) != 0))) {
            q++;
        }
        q = zero + ((v < 0.0f) ? -q : q);
        q = (q < -128) ? -128 : q;
        y[i] = (int8_t)((q > 127) ? 127 : q);
    }
}
