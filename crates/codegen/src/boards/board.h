/* What the harness asks of a board: files of the host, the stack, and marks that the counter of instructions knows. */
#ifndef BOARD_H
#define BOARD_H

#include <stdint.h>

/* A file beside the emulator; less than 0 where it cannot be opened. */
int32_t board_open(const char *name, int32_t writes);
/* How many bytes were read. */
uint32_t board_read(int32_t file, void *to, uint32_t bytes);
/* How many bytes were written. */
uint32_t board_write(int32_t file, const void *from, uint32_t bytes);
void board_close(int32_t file);
void board_say(const char *text);

/* Fills the free stack with a pattern. */
void board_paint(void);
/* Bytes of the stack that were used below the caller's since it was painted; 0 where this is not known. */
uint32_t board_stack(void);

/* Instructions between the two are those of an inference. */
void board_begin(void);
void board_end(void);

#endif
