/* Two windows of k numbers, in turn, times four channels, in turn: the sums of the first, then of the second.
   Returns the weights behind. */
static const float *es_tile_f32(int32_t k, const float *x, const float *w, float sum[8])
{
    int32_t i;
    for (i = 0; i < 8; i++) {
        sum[i] = 0.0f;
    }
    if ((k & 1) != 0) {
        for (i = 0; i < 4; i++) {
            sum[i] = x[0] * w[i];
            sum[i + 4] = x[1] * w[i];
        }
        x = &x[2];
        w = &w[4];
    }
    k >>= 1;
    if (k > 0) {
        __asm__ volatile("vldm %[sum], {s12-s19}\n"
                         "1:\n"
                         "vldmia %[x]!, {s0-s3}\n"
                         "vldmia %[w]!, {s4-s11}\n"
                         "subs %[k], %[k], #1\n"
                         "vfma.f32 s12, s0, s4\n"
                         "vfma.f32 s13, s0, s5\n"
                         "vfma.f32 s14, s0, s6\n"
                         "vfma.f32 s15, s0, s7\n"
                         "vfma.f32 s16, s1, s4\n"
                         "vfma.f32 s17, s1, s5\n"
                         "vfma.f32 s18, s1, s6\n"
                         "vfma.f32 s19, s1, s7\n"
                         "vfma.f32 s12, s2, s8\n"
                         "vfma.f32 s13, s2, s9\n"
                         "vfma.f32 s14, s2, s10\n"
                         "vfma.f32 s15, s2, s11\n"
                         "vfma.f32 s16, s3, s8\n"
                         "vfma.f32 s17, s3, s9\n"
                         "vfma.f32 s18, s3, s10\n"
                         "vfma.f32 s19, s3, s11\n"
                         "bne 1b\n"
                         "vstm %[sum], {s12-s19}\n"
                         : [x] "+&r"(x), [w] "+&r"(w), [k] "+&r"(k)
                         : [sum] "r"(sum)
                         : "s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "s12",
                           "s13", "s14", "s15", "s16", "s17", "s18", "s19", "cc", "memory");
    }
    return w;
}
