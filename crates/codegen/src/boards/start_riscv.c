/* Start of RISC-V in machine mode: stack and traps, what is said of one, calls to the host, and the painted stack. */
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
        /* The emulator knows a call to the host by these three instructions in a page, none of them short. */
        ".section .text.semihosting, \"ax\"\n"
        ".option push\n"
        ".option norvc\n"
        ".balign 16\n"
        ".globl semihosting\n"
        ".type semihosting, @function\n"
        "semihosting:\n"
        "slli x0, x0, 0x1f\n"
        "ebreak\n"
        "srai x0, x0, 7\n"
        "ret\n"
        ".option pop\n"
        ".size semihosting, . - semihosting\n"
        ".section .text.board_paint, \"ax\"\n"
        ".globl board_paint\n"
        ".type board_paint, @function\n"
        "board_paint:\n"
        "la t0, board_stack_limit\n"
        "li t1, 0xa5c3a5c3\n"
        "1: bgeu t0, sp, 2f\n"
        "sw t1, 0(t0)\n"
        "addi t0, t0, 4\n"
        "j 1b\n"
        "2: ret\n"
        ".size board_paint, . - board_paint\n"
        ".section .text.board_stack, \"ax\"\n"
        ".globl board_stack\n"
        ".type board_stack, @function\n"
        "board_stack:\n"
        "la t0, board_stack_limit\n"
        "li t1, 0xa5c3a5c3\n"
        "1: bgeu t0, sp, 2f\n"
        "lw t2, 0(t0)\n"
        "bne t2, t1, 2f\n"
        "addi t0, t0, 4\n"
        "j 1b\n"
        "2: sub a0, sp, t0\n"
        "ret\n"
        ".size board_stack, . - board_stack\n"
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
