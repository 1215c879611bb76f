/* The host's memory and output for the driver. */
#include <stdio.h>
#include <stdlib.h>

static void *held[64];
static int holding;

static void *test_alloc(size_t bytes)
{
    void *p = malloc(bytes);
    held[holding++] = p;
    return p;
}

static void test_free_all(void)
{
    while (holding > 0) {
        free(held[--holding]);
    }
}

static void test_report(int at, int kernel, int byte, int want, int got)
{
    printf("case %d of kernel %d: byte %d is %d, not %d\n", at, kernel, byte, got, want);
}
