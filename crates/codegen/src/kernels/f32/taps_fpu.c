/* Four channels of rows times columns taps: steps to the next column and row of x, and to the next tap and row of w,
   in numbers. */
static void es_taps_f32(int32_t rows, int32_t columns, const float *x, const int32_t step[4], const float *w,
                        float sum[4])
{
    for (; rows > 0; rows--) {
        const float *v = x;
        const float *u = w;
        int32_t i = columns;
        __asm__ volatile("vldm %[sum], {s8-s11}\n"
                         "1:\n"
                         "vldm %[v], {s0-s3}\n"
                         "vldm %[u], {s4-s7}\n"
                         "add %[v], %[v], %[dv], lsl #2\n"
                         "add %[u], %[u], %[du], lsl #2\n"
                         "subs %[i], %[i], #1\n"
                         "vfma.f32 s8, s0, s4\n"
                         "vfma.f32 s9, s1, s5\n"
                         "vfma.f32 s10, s2, s6\n"
                         "vfma.f32 s11, s3, s7\n"
                         "bne 1b\n"
                         "vstm %[sum], {s8-s11}\n"
                         : [v] "+&r"(v), [u] "+&r"(u), [i] "+&r"(i)
                         : [sum] "r"(sum), [dv] "r"(step[0]), [du] "r"(step[2])
                         : "s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "cc",
                           "memory");
        x = &x[step[1]];
        w = &w[step[3]];
    }
}
