/* The whole number at or below v; numbers of 2^23 and more have no fraction. */
static float es_floor_of(float v)
{
    float whole;
    if (!((v > -8388608.0f) && (v < 8388608.0f))) {
        return v;
    }
    whole = (float)(int32_t)v;
    return (whole > v) ? (whole - 1.0f) : whole;
}
