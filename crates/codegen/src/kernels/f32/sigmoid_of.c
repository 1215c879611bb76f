/* 1 / (1 + e^-v), to within 4 units in the last place. */
static float es_sigmoid_of(float v)
{
    const float e = es_exp_of((v < 0.0f) ? v : -v);
    return ((v < 0.0f) ? e : 1.0f) / (1.0f + e);
}
