/* The clock and the arrays of the layers. */
extern void board_print(const char *text);
extern void board_number(long value);

static const int32_t bias[256] = {5, -3, 1000, 22};
static const int32_t mult[256] = {5000000, 4000000, 3000000};
static int8_t x[65536] __attribute__((aligned(16)));
static int8_t y[65536] __attribute__((aligned(16)));
static uint8_t scratch[8192] __attribute__((aligned(16)));

static const void *volatile at;

static void begin(void)
{
    *(volatile uint32_t *)0xE000E014u = 0xffffffu;
    *(volatile uint32_t *)0xE000E018u = 0u;
    *(volatile uint32_t *)0xE000E010u = 5u;
    __asm__ volatile("" ::: "memory");
}

static void end(void)
{
    uint32_t left;
    __asm__ volatile("" ::: "memory");
    left = *(volatile uint32_t *)0xE000E018u;
    board_number((long)(0xffffffu - left));
    board_print("\n");
}

