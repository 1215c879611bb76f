/* Runs of bytes by steps over five axes: transpose, pad (after a fill), slice, concat, tile, resize by whole
   factors. Steps are in bytes; x and y do not overlap. */
typedef struct {
    int32_t size[5];
    int32_t from[5];
    int32_t to[5];
    int32_t bytes;
} es_move;

static void es_move_bytes(const es_move *p, const void *from, void *to)
{
    const uint8_t *const x = (const uint8_t *)from;
    uint8_t *const y = (uint8_t *)to;
    int32_t a;
    int32_t b;
    int32_t c;
    int32_t d;
    int32_t e;
    for (a = 0; a < p->size[0]; a++) {
        for (b = 0; b < p->size[1]; b++) {
            for (c = 0; c < p->size[2]; c++) {
                for (d = 0; d < p->size[3]; d++) {
                    const uint8_t *xe = &x[(a * p->from[0]) + (b * p->from[1]) + (c * p->from[2]) +
                                           (d * p->from[3])];
                    uint8_t *ye = &y[(a * p->to[0]) + (b * p->to[1]) + (c * p->to[2]) + (d * p->to[3])];
                    for (e = 0; e < p->size[4]; e++) {
                        if (p->bytes == 1) {
                            *ye = *xe;
                        } else {
                            memcpy(ye, xe, (size_t)p->bytes);
                        }
                        xe = &xe[p->from[4]];
                        ye = &ye[p->to[4]];
                    }
                }
            }
        }
    }
}
