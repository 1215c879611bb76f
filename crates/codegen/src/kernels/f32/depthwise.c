/* Taps of a kernel that lie inside along an axis: the first in *from; returns how many. */
static int32_t es_inner(int32_t start, int32_t kernel, int32_t dilation, int32_t size, int32_t *from)
{
    int32_t first = 0;
    int32_t end = kernel;
    while ((first < kernel) && ((start + (first * dilation)) < 0)) {
        first++;
    }
    while ((end > first) && ((start + ((end - 1) * dilation)) >= size)) {
        end--;
    }
    *from = first;
    return end - first;
}

/* Any depthwise convolution; weights lie tap by tap. y does not overlap x. */
static void es_depthwise_f32(const es_convf *p, const float *x, const float *w, float *y)
{
    const int32_t channels = p->in_c;
    int32_t step[4];
    int32_t oy;
    int32_t ox;
    int32_t c;
    int32_t i;
    step[0] = p->dilation_w * channels;
    step[1] = p->dilation_h * p->in_w * channels;
    step[2] = channels;
    step[3] = p->kernel_w * channels;
    for (oy = 0; oy < p->out_h; oy++) {
        const int32_t top = (oy * p->stride_h) - p->pad_top;
        int32_t ky;
        const int32_t rows = es_inner(top, p->kernel_h, p->dilation_h, p->in_h, &ky);
        for (ox = 0; ox < p->out_w; ox++) {
            const int32_t left = (ox * p->stride_w) - p->pad_left;
            int32_t kx;
            const int32_t columns = es_inner(left, p->kernel_w, p->dilation_w, p->in_w, &kx);
            const int32_t pixel = ((top + (ky * p->dilation_h)) * p->in_w) + left + (kx * p->dilation_w);
            const float *v = &x[(rows > 0) && (columns > 0) ? (pixel * channels) : 0];
            const float *u = &w[((rows > 0) && (columns > 0)) ? (((ky * p->kernel_w) + kx) * channels) : 0];
            const int32_t seen = (columns > 0) ? rows : 0;
            for (c = 0; c < channels; c += 4) {
                const int32_t some = ((channels - c) < 4) ? (channels - c) : 4;
                float sum[4];
                for (i = 0; i < some; i++) {
                    sum[i] = p->bias[c + i];
                }
                if (some == 4) {
                    es_taps_f32(seen, columns, v, step, u, sum);
                } else {
                    int32_t t;
                    for (t = 0; t < (seen * columns); t++) {
                        const int32_t row = t / columns;
                        const float *const vt = &v[(row * step[1]) + ((t - (row * columns)) * step[0])];
                        const float *const ut = &u[(row * step[3]) + ((t - (row * columns)) * step[2])];
                        for (i = 0; i < some; i++) {
                            sum[i] += vt[i] * ut[i];
                        }
                    }
                }
                for (i = 0; i < some; i++) {
                    y[c + i] = es_bounded(sum[i], p->lo, p->hi);
                }
                v = &v[some];
                u = &u[some];
            }
            y = &y[channels];
        }
    }
}
