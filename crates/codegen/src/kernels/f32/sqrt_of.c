/* The square root: the instruction where there is one, else to within 1 unit in the last place by Newton's steps from
   half the exponent. */
static float es_sqrt_of(float v)
{
#if defined(__ARM_FP) && ((__ARM_FP & 4) != 0)
    float root;
    __asm__("vsqrt.f32 %0, %1" : "=t"(root) : "t"(v));
    return root;
#else
    int32_t bits;
    float root;
    int32_t i;
    float scale = 1.0f;
    if (!(v > 0.0f) || (v > 3.4028234e38f)) {
        const float zero = (v < 0.0f) ? 0.0f : 1.0f;
        return (v < 0.0f) ? (zero / zero) : v;
    }
    if (v < 1.17549435e-38f) {
        v *= 16777216.0f;
        scale = 1.0f / 4096.0f;
    }
    memcpy(&bits, &v, sizeof(v));
    bits = (bits >> 1) + 0x1fbb4f2e;
    memcpy(&root, &bits, sizeof(root));
    for (i = 0; i < 4; i++) {
        root = 0.5f * (root + (v / root));
    }
    return root * scale;
#endif
}
