/* Files of the host through semihosting, marks for the counter of instructions, and the way to the program. */
#include "semihosting.h"

#include "board.h"

static uint32_t length(const char *text) {
    uint32_t n = 0U;
    while (text[n] != '\0') {
        n++;
    }
    return n;
}

int32_t board_open(const char *name, int32_t writes) {
    uint32_t block[3];
    block[0] = (uint32_t)(uintptr_t)name;
    block[1] = (writes != 0) ? 5U : 1U;
    block[2] = length(name);
    return semihosting(0x01U, block);
}

uint32_t board_read(int32_t file, void *to, uint32_t bytes) {
    uint32_t block[3];
    block[0] = (uint32_t)file;
    block[1] = (uint32_t)(uintptr_t)to;
    block[2] = bytes;
    return bytes - (uint32_t)semihosting(0x06U, block);
}

uint32_t board_write(int32_t file, const void *from, uint32_t bytes) {
    uint32_t block[3];
    block[0] = (uint32_t)file;
    block[1] = (uint32_t)(uintptr_t)from;
    block[2] = bytes;
    return bytes - (uint32_t)semihosting(0x05U, block);
}

void board_close(int32_t file) {
    uint32_t block[1];
    block[0] = (uint32_t)file;
    (void)semihosting(0x02U, block);
}

void board_say(const char *text) {
    (void)semihosting(0x04U, text);
}

void board_say_hex(uint32_t number) {
    char text[12];
    uint32_t i;
    text[0] = ' ';
    text[1] = '0';
    text[2] = 'x';
    for (i = 0U; i < 8U; i++) {
        text[3U + i] = "0123456789abcdef"[(number >> (28U - 4U * i)) & 15U];
    }
    text[11] = '\0';
    board_say(text);
}

void board_exit(uint32_t code) {
    uint32_t block[2];
    block[0] = 0x20026U;
    block[1] = code;
    for (;;) {
        (void)semihosting(0x20U, block);
    }
}

__attribute__((noinline)) void board_begin(void) {
    __asm__ volatile("");
}

__attribute__((noinline)) void board_end(void) {
    __asm__ volatile("");
}

void board_run(void) {
    uint32_t *from = &board_data_load;
    uint32_t *to = &board_data_start;
    while (to < &board_data_end) {
        *to = *from;
        to++;
        from++;
    }
    for (to = &board_bss_start; to < &board_bss_end; to++) {
        *to = 0U;
    }
    board_exit((uint32_t)main());
}
