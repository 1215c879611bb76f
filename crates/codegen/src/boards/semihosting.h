/* What the start-up code of every architecture and the calls to the host know of each other. */
#ifndef SEMIHOSTING_H
#define SEMIHOSTING_H

#include <stdint.h>

/* Set by the linker script. */
extern uint32_t board_stack_top;
extern uint32_t board_data_start;
extern uint32_t board_data_end;
extern uint32_t board_data_load;
extern uint32_t board_bss_start;
extern uint32_t board_bss_end;

int main(void);

/* Fills memory and runs the program. */
void board_run(void) __attribute__((noreturn));
void board_exit(uint32_t code) __attribute__((noreturn));
void board_say_hex(uint32_t number);

#if defined(__riscv)
int32_t semihosting(uint32_t operation, const void *block);
#else
static inline int32_t semihosting(uint32_t operation, const void *block) {
    register uint32_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = block;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return (int32_t)r0;
}
#endif

#endif
