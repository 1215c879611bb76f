/* The board that is this machine: its own files, and no marks. */
#include <stdio.h>

#include "board.h"

static FILE *files[8];

int32_t board_open(const char *name, int32_t writes) {
    int32_t i;
    for (i = 0; i < 8; i++) {
        if (files[i] == NULL) {
            files[i] = fopen(name, (writes != 0) ? "wb" : "rb");
            return (files[i] != NULL) ? i : -1;
        }
    }
    return -1;
}

uint32_t board_read(int32_t file, void *to, uint32_t bytes) {
    return (uint32_t)fread(to, 1U, bytes, files[file]);
}

uint32_t board_write(int32_t file, const void *from, uint32_t bytes) {
    return (uint32_t)fwrite(from, 1U, bytes, files[file]);
}

void board_close(int32_t file) {
    (void)fclose(files[file]);
    files[file] = NULL;
}

void board_say(const char *text) {
    (void)fputs(text, stderr);
}

void board_paint(void) {
}

uint32_t board_stack(void) {
    return 0U;
}

void board_begin(void) {
}

void board_end(void) {
}
