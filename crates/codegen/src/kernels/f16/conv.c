/* Any convolution of halves, two pixels at a time; y lies as that of es_conv8, if there is one group. The scratch is two
   windows. */
static void es_conv_f16(const es_convh *p, const void *from, const void *weights, void *to, void *scratch)
{
    const es_half *const x = (const es_half *)from;
    const es_half *const w = (const es_half *)weights;
    es_half *const y = (es_half *)to;
    const int32_t pixels = p->out_h * p->out_w;
    const int32_t k = p->kernel_h * p->kernel_w * (p->in_c / p->groups);
    const int32_t channels = p->out_c / p->groups;
    const int32_t step = ((channels + 7) & ~7) * k;
    es_half *const windows = (es_half *)scratch;
    int32_t i;
    int32_t g;
    for (i = 0; i < pixels; i += 2) {
        const int32_t next = ((i + 1) < pixels) ? 1 : 0;
        for (g = 0; g < p->groups; g++) {
            es_half *const y0 = &y[(i * p->out_c) + (g * channels)];
            es_window_f16(p, x, i, g, windows);
            es_window_f16(p, x, i + next, g, &windows[k]);
            es_block_f16(&p->bias[g * channels], p->lo, p->hi, channels, k, windows, &w[g * step], y0,
                         &y0[next * p->out_c]);
        }
    }
}
