/* A network of two layers, written by hand to try boards with: y[i] = sum of rows of w times x, then doubled. */
#ifndef TINY_H
#define TINY_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TINY_ARENA_BYTES 24

void tiny_init(void);
void tiny_invoke(void);
int8_t *tiny_input_x(void);
const int32_t *tiny_output_sums(void);
const int8_t *tiny_output_copy(void);

#ifdef __cplusplus
}
#endif

#endif
