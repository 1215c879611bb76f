/* Pixels of so many bytes by tables of the rows and columns that they come from. */
typedef struct {
    int32_t in_w;
    int32_t out_h;
    int32_t out_w;
    int32_t bytes;
    const uint16_t *rows;
    const uint16_t *columns;
} es_resize;

static void es_resize_nearest(const es_resize *p, const void *from, void *to)
{
    const uint8_t *const x = (const uint8_t *)from;
    uint8_t *y = (uint8_t *)to;
    int32_t oy;
    int32_t ox;
    for (oy = 0; oy < p->out_h; oy++) {
        for (ox = 0; ox < p->out_w; ox++) {
            const int32_t pixel = ((int32_t)p->rows[oy] * p->in_w) + (int32_t)p->columns[ox];
            memcpy(y, &x[pixel * p->bytes], (size_t)p->bytes);
            y = &y[p->bytes];
        }
    }
}
