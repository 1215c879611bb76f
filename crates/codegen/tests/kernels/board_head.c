/* The board's memory and output for the driver. */
#include <stddef.h>
extern void board_print(const char *text);
extern void board_number(long value);

static uint8_t pool[400 * 1024] __attribute__((aligned(16)));
static size_t pooled;

static void *test_alloc(size_t bytes)
{
    void *p = &pool[pooled];
    pooled += (bytes + 15u) & ~(size_t)15u;
    return p;
}

static void test_free_all(void)
{
    pooled = 0;
}

static void test_report(int at, int kernel, int byte, int want, int got)
{
    board_print("case ");
    board_number(at);
    board_print(" of kernel ");
    board_number(kernel);
    board_print(": byte ");
    board_number(byte);
    board_print(" is ");
    board_number(got);
    board_print(", not ");
    board_number(want);
    board_print("\n");
}
