/* Four channels of rows times columns taps: steps to the next column and row of x, and to the next tap and row of w,
   in numbers. */
static void es_taps_f32(int32_t rows, int32_t columns, const float *x, const int32_t step[4], const float *w,
                        float sum[4])
{
    for (; rows > 0; rows--) {
        const float *v = x;
        const float *u = w;
        __asm__ volatile("vldrw.u32 q0, [%[sum]]\n"
                         "dls lr, %[columns]\n"
                         "1:\n"
                         "vldrw.u32 q1, [%[v]]\n"
                         "vldrw.u32 q2, [%[u]]\n"
                         "add %[v], %[v], %[dv], lsl #2\n"
                         "add %[u], %[u], %[du], lsl #2\n"
                         "vfma.f32 q0, q1, q2\n"
                         "le lr, 1b\n"
                         "vstrw.32 q0, [%[sum]]\n"
                         : [v] "+&r"(v), [u] "+&r"(u)
                         : [sum] "r"(sum), [dv] "r"(step[0]), [du] "r"(step[2]), [columns] "r"(columns)
                         : "q0", "q1", "q2", "lr", "cc", "memory");
        x = &x[step[1]];
        w = &w[step[3]];
    }
}
