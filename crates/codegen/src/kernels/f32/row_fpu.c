/* n numbers times four channels, in turn. Returns the weights behind. */
static const float *es_row_f32(int32_t n, const float *x, const float *w, float sum[4])
{
    int32_t i;
    for (i = 0; i < 4; i++) {
        sum[i] = 0.0f;
    }
    if ((n & 1) != 0) {
        for (i = 0; i < 4; i++) {
            sum[i] = x[0] * w[i];
        }
        x++;
        w = &w[4];
    }
    n >>= 1;
    if (n > 0) {
        __asm__ volatile("vldm %[sum], {s12-s15}\n"
                         "1:\n"
                         "vldmia %[x]!, {s0-s1}\n"
                         "vldmia %[w]!, {s4-s11}\n"
                         "subs %[n], %[n], #1\n"
                         "vfma.f32 s12, s0, s4\n"
                         "vfma.f32 s13, s0, s5\n"
                         "vfma.f32 s14, s0, s6\n"
                         "vfma.f32 s15, s0, s7\n"
                         "vfma.f32 s12, s1, s8\n"
                         "vfma.f32 s13, s1, s9\n"
                         "vfma.f32 s14, s1, s10\n"
                         "vfma.f32 s15, s1, s11\n"
                         "bne 1b\n"
                         "vstm %[sum], {s12-s15}\n"
                         : [x] "+&r"(x), [w] "+&r"(w), [n] "+&r"(n)
                         : [sum] "r"(sum)
                         : "s0", "s1", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "s12", "s13", "s14",
                           "s15", "cc", "memory");
    }
    return w;
}
