/* rows of halves times a matrix, whose weights lie as those of es_conv_f16; the scratch is two rows. */
static void es_dense_f16(const es_denseh *p, const void *from, const void *weights, void *to, void *scratch)
{
    const es_half *x = (const es_half *)from;
    es_half *y = (es_half *)to;
    es_half *const windows = (es_half *)scratch;
    const size_t bytes = (size_t)p->in * sizeof(es_half);
    int32_t row;
    for (row = 0; row < p->rows; row++) {
        memcpy(windows, x, bytes);
        memcpy(&windows[p->in], x, bytes);
        es_block_f16(p->bias, p->lo, p->hi, p->out, p->in, windows, (const es_half *)weights, y, y);
        x = &x[p->in];
        y = &y[p->out];
    }
}
