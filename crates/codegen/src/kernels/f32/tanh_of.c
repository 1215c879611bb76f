/* The hyperbolic tangent, to within 3 units in the last place: its series near 0, and by e^(2 v). */
static float es_tanh_of(float v)
{
    const float size = (v < 0.0f) ? -v : v;
    float t;
    if (size < 0.3f) {
        const float q = v * v;
        t = q * (-1.0f / 3.0f + (q * (2.0f / 15.0f + (q * (-17.0f / 315.0f + (q * (62.0f / 2835.0f)))))));
        return v + (v * t);
    }
    if (size > 9.1f) {
        return (v < 0.0f) ? -1.0f : 1.0f;
    }
    t = 1.0f - (2.0f / (es_exp_of(2.0f * size) + 1.0f));
    return (v < 0.0f) ? -t : t;
}
