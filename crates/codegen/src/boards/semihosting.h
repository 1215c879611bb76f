/* What the start-up code of every architecture and the calls to the host know of each other. */
#ifndef SEMIHOSTING_H
#define SEMIHOSTING_H

#include <stdint.h>

/* Set by the linker script. */
extern uint32_t board_stack_top;
extern uint32_t board_stack_limit;
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
static inline int32_t semihosting(uint32_t operation, const void *block) {
    register uint32_t a0 __asm__("a0") = operation;
    register const void *a1 __asm__("a1") = block;
    __asm__ volatile(".option push\n"
                     ".option norvc\n"
                     ".balign 16\n"
                     "slli x0, x0, 0x1f\n"
                     "ebreak\n"
                     "srai x0, x0, 7\n"
                     ".option pop"
                     : "+r"(a0)
                     : "r"(a1)
                     : "memory");
    return (int32_t)a0;
}
#else
static inline int32_t semihosting(uint32_t operation, const void *block) {
    register uint32_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = block;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return (int32_t)r0;
}
#endif

static inline uintptr_t stack_pointer(void) {
    uintptr_t at;
#if defined(__riscv)
    __asm__ volatile("mv %0, sp" : "=r"(at));
#else
    __asm__ volatile("mov %0, sp" : "=r"(at));
#endif
    return at;
}

#endif
