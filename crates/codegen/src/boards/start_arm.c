/* Start of Cortex-M: vectors, the floating-point unit, what is said of a fault, and the painted stack. */
#include "board.h"
#include "semihosting.h"

#define CPACR (*(volatile uint32_t *)0xE000ED88U)
#define CFSR (*(volatile uint32_t *)0xE000ED28U)
#define BFAR (*(volatile uint32_t *)0xE000ED38U)

void board_reset(void);
void board_reset(void) {
#if defined(__ARM_FP) || defined(__ARM_FEATURE_MVE)
    CPACR |= 0x00F00000U;
    __asm__ volatile("dsb\n isb");
#endif
    board_run();
}

/* The registers that the core saved; the seventh is where it happened. */
void board_fault(const uint32_t *saved);
void board_fault(const uint32_t *saved) {
    uint32_t number;
    __asm__ volatile("mrs %0, ipsr" : "=r"(number));
    board_say("fault arm");
    board_say_hex(number);
    board_say_hex(saved[6]);
    board_say_hex(CFSR);
    board_say_hex(BFAR);
    board_say("\n");
    board_exit(99U);
}

__attribute__((naked)) static void caught(void) {
    __asm__ volatile("mov r0, sp\n bl board_fault");
}

struct vectors {
    uint32_t *stack;
    void (*handlers[15])(void);
};

__attribute__((section(".start"), used)) static const struct vectors VECTORS = {
    &board_stack_top,
    {board_reset, caught, caught, caught, caught, caught, caught, caught, caught, caught, caught, caught, caught,
     caught, caught}};

__asm__(".syntax unified\n"
        ".thumb\n"
        ".section .text.board_paint, \"ax\", %progbits\n"
        ".balign 4\n"
        ".globl board_paint\n"
        ".thumb_func\n"
        ".type board_paint, %function\n"
        "board_paint:\n"
        "ldr r0, =board_stack_limit\n"
        "ldr r1, =0xa5c3a5c3\n"
        "mov r2, sp\n"
        "1: cmp r0, r2\n"
        "bhs 2f\n"
        "stm r0!, {r1}\n"
        "b 1b\n"
        "2: bx lr\n"
        ".pool\n"
        ".size board_paint, . - board_paint\n"
        ".section .text.board_stack, \"ax\", %progbits\n"
        ".balign 4\n"
        ".globl board_stack\n"
        ".thumb_func\n"
        ".type board_stack, %function\n"
        "board_stack:\n"
        "ldr r1, =board_stack_limit\n"
        "ldr r2, =0xa5c3a5c3\n"
        "mov r0, sp\n"
        "1: cmp r1, r0\n"
        "bhs 2f\n"
        "ldr r3, [r1]\n"
        "cmp r3, r2\n"
        "bne 2f\n"
        "adds r1, #4\n"
        "b 1b\n"
        "2: subs r0, r0, r1\n"
        "bx lr\n"
        ".pool\n"
        ".size board_stack, . - board_stack\n"
        ".text");
