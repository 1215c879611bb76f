/* y = x / scale, rounded to even, within int16; 0 for what is no number. */
static void es_quantize16(int32_t count, float scale, const float *x, int16_t *y)
{
    int32_t i;
    for (i = 0; i < count; i++) {
        const float v = x[i] / scale;
        float size = (v < 0.0f) ? -v : v;
        int32_t q;
        if (size >= 40000.0f) {
            size = 40000.0f;
        } else if (!(size < 40000.0f)) {
            size = 0.0f;
        } else {
            /* Within the range of int32_t. */
        }
        q = (int32_t)size;
        size -= (float)q;
        if ((size > 0.5f) || ((size >= 0.5f) && ((q & 1) != 0))) {
            q++;
        }
        q = (v < 0.0f) ? -q : q;
        q = (q < -32768) ? -32768 : q;
        y[i] = (int16_t)((q > 32767) ? 32767 : q);
    }
}
