/* Any depthwise convolution of halves, eight channels at a time; weights lie tap by tap. y does not overlap x. */
static void es_depthwise_f16(const es_convh *p, const void *from, const void *weights, void *to)
{
    const es_half *const x = (const es_half *)from;
    const es_half *const w = (const es_half *)weights;
    es_half *y = (es_half *)to;
    const int32_t channels = p->in_c;
    const float16x8_t lo = vdupq_n_f16((es_half)p->lo);
    const float16x8_t hi = vdupq_n_f16((es_half)p->hi);
    int32_t oy;
    int32_t ox;
    int32_t c;
    int32_t ky;
    int32_t kx;
    int32_t i;
    for (oy = 0; oy < p->out_h; oy++) {
        const int32_t top = (oy * p->stride_h) - p->pad_top;
        for (ox = 0; ox < p->out_w; ox++) {
            const int32_t left = (ox * p->stride_w) - p->pad_left;
            for (c = 0; c < channels; c += 8) {
                const mve_pred16_t some = vctp16q((uint32_t)(channels - c));
                es_half bias[8];
                float16x8_t sum;
                for (i = 0; i < 8; i++) {
                    bias[i] = (es_half)(((c + i) < channels) ? p->bias[c + i] : 0.0f);
                }
                sum = vld1q_f16(bias);
                for (ky = 0; ky < p->kernel_h; ky++) {
                    const int32_t iy = top + (ky * p->dilation_h);
                    if ((iy < 0) || (iy >= p->in_h)) {
                        continue;
                    }
                    for (kx = 0; kx < p->kernel_w; kx++) {
                        const int32_t ix = left + (kx * p->dilation_w);
                        if ((ix >= 0) && (ix < p->in_w)) {
                            const es_half *const u = &x[(((iy * p->in_w) + ix) * channels) + c];
                            const es_half *const v = &w[(((ky * p->kernel_w) + kx) * channels) + c];
                            sum = vfmaq_f16(sum, vld1q_z_f16(u, some), vld1q_z_f16(v, some));
                        }
                    }
                }
                sum = vminnmq_f16(vmaxnmq_f16(sum, lo), hi);
                vst1q_p_f16(&y[c], sum, some);
            }
            y = &y[channels];
        }
    }
}
