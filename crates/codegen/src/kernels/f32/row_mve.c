/* n numbers times four channels, in turn. Returns the weights behind. */
static const float *es_row_f32(int32_t n, const float *x, const float *w, float sum[4])
{
    __asm__ volatile("vmov.i32 q0, #0\n"
                     "dls lr, %[n]\n"
                     "1:\n"
                     "ldr r2, [%[x]], #4\n"
                     "vldrw.u32 q2, [%[w]], #16\n"
                     "vfma.f32 q0, q2, r2\n"
                     "le lr, 1b\n"
                     "vstrw.32 q0, [%[sum]]\n"
                     : [x] "+&r"(x), [w] "+&r"(w)
                     : [n] "r"(n), [sum] "r"(sum)
                     : "r2", "q0", "q2", "lr", "cc", "memory");
    return w;
}
