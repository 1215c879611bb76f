/* Runs the cases of a blob, and says where an answer is another one. Included behind the text of the kernels. */
#include <stddef.h>

typedef struct {
    const uint8_t *at;
} blob;

static int32_t next(blob *b)
{
    int32_t v;
    memcpy(&v, b->at, 4);
    b->at += 4;
    return v;
}

/* A copy that is as long as it may be read. */
static void *array(blob *b, int32_t *bytes)
{
    void *copy;
    *bytes = next(b);
    copy = test_alloc((size_t)*bytes);
    memcpy(copy, b->at, (size_t)*bytes);
    b->at += (*bytes + 3) & ~3;
    return copy;
}

#include "calls.inc"

/* A case: kernel, 24 parameters, scratch bytes, where y starts behind x (or -1: apart), arrays x, second,
   w, bias, mult, expected. Returns the number of wrong cases. */
static int run_cases(const uint8_t *bytes)
{
    blob b;
    int32_t cases;
    int32_t i;
    int wrong = 0;
    b.at = bytes;
    cases = next(&b);
    for (i = 0; i < cases; i++) {
        int32_t q[24];
        int32_t sizes[6];
        void *arrays[6];
        const int32_t kernel = next(&b);
        int32_t scratch_bytes;
        int32_t overlap;
        int32_t k;
        uint8_t *scratch;
        uint8_t *y;
        for (k = 0; k < 24; k++) {
            q[k] = next(&b);
        }
        scratch_bytes = next(&b);
        overlap = next(&b);
        for (k = 0; k < 6; k++) {
            arrays[k] = array(&b, &sizes[k]);
        }
        scratch = (uint8_t *)test_alloc((size_t)scratch_bytes);
        memset(scratch, 0x5a, (size_t)scratch_bytes);
        y = (overlap < 0) ? (uint8_t *)test_alloc((size_t)sizes[5]) : (uint8_t *)arrays[0] + overlap;
        if (overlap < 0) {
            memset(y, 0x77, (size_t)sizes[5]);
        }
        call(kernel, q, arrays, y, scratch);
        k = test_differs(kernel, q, (const uint8_t *)arrays[5], y, sizes[5]);
        if (k >= 0) {
            test_report(i, kernel, k, ((const uint8_t *)arrays[5])[k], y[k]);
            wrong++;
        }
        test_free_all();
    }
    return wrong;
}
