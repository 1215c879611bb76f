/* Start of Cortex-M: vectors, the floating-point unit, and what is said of a fault. */
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
