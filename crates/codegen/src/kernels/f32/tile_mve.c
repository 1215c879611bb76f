/* Two windows of k numbers, in turn, times four channels, in turn: the sums of the first, then of the second.
   Returns the weights behind. */
static const float *es_tile_f32(int32_t k, const float *x, const float *w, float sum[8])
{
    __asm__ volatile("vmov.i32 q0, #0\n"
                     "vmov.i32 q1, #0\n"
                     "dls lr, %[k]\n"
                     "1:\n"
                     "ldrd r2, r3, [%[x]], #8\n"
                     "vldrw.u32 q2, [%[w]], #16\n"
                     "vfma.f32 q0, q2, r2\n"
                     "vfma.f32 q1, q2, r3\n"
                     "le lr, 1b\n"
                     "vstrw.32 q0, [%[sum]]\n"
                     "vstrw.32 q1, [%[sum], #16]\n"
                     : [x] "+&r"(x), [w] "+&r"(w)
                     : [k] "r"(k), [sum] "r"(sum)
                     : "r2", "r3", "q0", "q1", "q2", "lr", "cc", "memory");
    return w;
}
