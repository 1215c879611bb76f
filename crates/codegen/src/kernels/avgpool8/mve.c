/* The mean of what of each window lies inside: requantise(sum - n * zero) for n numbers by the multiplier
   n - 1, or by the first if counted is 0 (padding counts, or there is none); no bias. y lies as in es_maxpool8. */
typedef struct {
    es_pool at;
    int32_t in_zero;
    int32_t counted;
    es_requant to;
} es_avgpool;

static void es_avgpool8(const es_avgpool *p, const int8_t *x, int8_t *y)
{
    const int32_t c = p->at.in_c;
    const int32x4_t lo = vdupq_n_s32(p->to.lo);
    const int32x4_t hi = vdupq_n_s32(p->to.hi);
    int32_t oy;
    int32_t ox;
    int32_t i;
    int32_t ky;
    int32_t kx;
    for (oy = 0; oy < p->at.out_h; oy++) {
        int32_t top;
        const int32_t rows =
            es_clip((oy * p->at.stride_h) - p->at.pad_top, p->at.kernel_h, p->at.in_h, &top);
        for (ox = 0; ox < p->at.out_w; ox++) {
            int32_t left;
            const int32_t columns =
                es_clip((ox * p->at.stride_w) - p->at.pad_left, p->at.kernel_w, p->at.in_w, &left);
            const int8_t *start = &x[((top * p->at.in_w) + left) * c];
            const int32_t n = rows * columns;
            const int32x4_t mult = vdupq_n_s32(p->to.mult[((p->counted != 0) && (n > 0)) ? (n - 1) : 0]);
            for (i = c; i > 0; i -= 4) {
                const mve_pred16_t some = vctp32q((uint32_t)i);
                const int8_t *row = start;
                int32x4_t sum = vdupq_n_s32(-n * p->in_zero);
                for (ky = 0; ky < rows; ky++) {
                    const int8_t *at = row;
                    for (kx = 0; kx < columns; kx++) {
                        sum = vaddq_s32(sum, vldrbq_z_s32(at, some));
                        at = &at[c];
                    }
                    row = &row[p->at.in_w * c];
                }
                sum = vaddq_n_s32(vrmulhq_s32(vshlq_r_s32(sum, p->to.shift), mult), p->to.zero);
                vstrbq_p_s32(y, vminq_s32(vmaxq_s32(sum, lo), hi), some);
                start = &start[4];
                y = &y[(i < 4) ? i : 4];
            }
        }
    }
}
