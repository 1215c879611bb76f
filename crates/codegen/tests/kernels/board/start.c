/* Start-up of the boards that QEMU knows by mps2-an385, an386, an500 and mps3-an547, with output and exit by
   semihosting. */
#include <stddef.h>
#include <stdint.h>

extern uint32_t stack_top;
extern uint32_t data_start;
extern uint32_t data_end;
extern uint32_t data_load;
extern uint32_t bss_start;
extern uint32_t bss_end;
int main(void);

static int host(int operation, const void *block)
{
    register int r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = block;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

void board_print(const char *text)
{
    (void)host(4, text);
}

void board_number(long value)
{
    char digits[16];
    int at = 15;
    unsigned long rest = (value < 0) ? (unsigned long)-value : (unsigned long)value;
    digits[at] = 0;
    do {
        digits[--at] = (char)('0' + (rest % 10u));
        rest /= 10u;
    } while (rest != 0u);
    if (value < 0) {
        digits[--at] = '-';
    }
    board_print(&digits[at]);
}

void board_exit(int code)
{
    uint32_t block[2];
    block[0] = 0x20026u;
    block[1] = (uint32_t)code;
    (void)host(0x20, block);
    for (;;) {
    }
}

void *memcpy(void *to, const void *from, size_t count)
{
    uint8_t *d = to;
    const uint8_t *s = from;
    while (count >= 4u) {
        uint32_t v;
        __builtin_memcpy(&v, s, 4);
        __builtin_memcpy(d, &v, 4);
        s += 4;
        d += 4;
        count -= 4u;
    }
    while (count-- > 0u) {
        *d++ = *s++;
    }
    return to;
}

void *memset(void *to, int value, size_t count)
{
    uint8_t *d = to;
    while (count-- > 0u) {
        *d++ = (uint8_t)value;
    }
    return to;
}

/* The names by which clang calls them. */
void __aeabi_memcpy(void *to, const void *from, size_t count)
{
    memcpy(to, from, count);
}

void __aeabi_memcpy4(void *to, const void *from, size_t count)
{
    memcpy(to, from, count);
}

void __aeabi_memclr4(void *to, size_t count)
{
    memset(to, 0, count);
}

static void fault(void)
{
    board_print("fault\n");
    board_exit(99);
}

void reset(void);

void reset(void)
{
    uint32_t *d;
    const uint32_t *s = &data_load;
#if defined(__ARM_FP) || defined(__ARM_FEATURE_MVE)
    *(volatile uint32_t *)0xE000ED88u |= 0xfu << 20;
    __asm__ volatile("dsb\nisb");
#endif
    for (d = &data_start; d < &data_end;) {
        *d++ = *s++;
    }
    for (d = &bss_start; d < &bss_end;) {
        *d++ = 0u;
    }
    board_exit(main());
}

__attribute__((section(".vectors"), used)) void *const vectors[16] = {
    &stack_top, reset, fault, fault, fault, fault, fault, fault, 0, 0, 0, fault, fault, 0, fault, fault};
