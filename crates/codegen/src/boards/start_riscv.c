/* Start of RISC-V in machine mode: stack and traps, and what is said of one. */
#include "board.h"
#include "semihosting.h"

__asm__(".section .start, \"ax\"\n"
        ".option arch, +zicsr\n"
        ".globl board_reset\n"
        "board_reset:\n"
        ".option push\n"
        ".option norelax\n"
        "la gp, __global_pointer$\n"
        ".option pop\n"
        "la sp, board_stack_top\n"
        "la t0, board_trap\n"
        "csrw mtvec, t0\n"
        "j board_run\n"
        ".balign 4\n"
        "board_trap:\n"
        "csrr a0, mcause\n"
        "csrr a1, mepc\n"
        "csrr a2, mtval\n"
        "j board_fault\n"
        ".text");

void board_fault(uint32_t cause, uint32_t at, uint32_t value) __attribute__((noreturn, used));
void board_fault(uint32_t cause, uint32_t at, uint32_t value) {
    board_say("fault riscv");
    board_say_hex(cause);
    board_say_hex(at);
    board_say_hex(value);
    board_say("\n");
    board_exit(99U);
}
