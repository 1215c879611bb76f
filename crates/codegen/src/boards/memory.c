/* The two functions of a C library that generated code may call. Words where the addresses allow them. */
#include <stdint.h>
#include <string.h>

#if defined(__ARM_FEATURE_UNALIGNED)
typedef struct __attribute__((packed, may_alias)) {
    uint32_t is;
} word;
#define APART(a, b) 0
#else
typedef struct __attribute__((may_alias)) {
    uint32_t is;
} word;
#define APART(a, b) ((((uintptr_t)(a) | (uintptr_t)(b)) & 3U) != 0U)
#endif

void *memcpy(void *restrict to, const void *restrict from, size_t bytes) {
    uint8_t *restrict t = to;
    const uint8_t *restrict f = from;
    if (!APART(t, f)) {
        while (bytes >= 16U) {
            uint32_t a = ((const word *)(const void *)f)[0].is;
            uint32_t b = ((const word *)(const void *)f)[1].is;
            uint32_t c = ((const word *)(const void *)f)[2].is;
            uint32_t d = ((const word *)(const void *)f)[3].is;
            ((word *)(void *)t)[0].is = a;
            ((word *)(void *)t)[1].is = b;
            ((word *)(void *)t)[2].is = c;
            ((word *)(void *)t)[3].is = d;
            f += 16;
            t += 16;
            bytes -= 16U;
        }
        while (bytes >= 4U) {
            *(word *)(void *)t = *(const word *)(const void *)f;
            f += 4;
            t += 4;
            bytes -= 4U;
        }
    }
    while (bytes > 0U) {
        *t = *f;
        t++;
        f++;
        bytes--;
    }
    return to;
}

__attribute__((noinline)) void *memset(void *to, int value, size_t bytes) {
    uint8_t *t = to;
    uint8_t byte = (uint8_t)value;
    if (bytes >= 8U) {
        uint32_t four = (uint32_t)byte * 0x01010101U;
        while (((uintptr_t)t & 3U) != 0U) {
            *t = byte;
            t++;
            bytes--;
        }
        while (bytes >= 16U) {
            ((word *)(void *)t)[0].is = four;
            ((word *)(void *)t)[1].is = four;
            ((word *)(void *)t)[2].is = four;
            ((word *)(void *)t)[3].is = four;
            t += 16;
            bytes -= 16U;
        }
        while (bytes >= 4U) {
            ((word *)(void *)t)->is = four;
            t += 4;
            bytes -= 4U;
        }
    }
    while (bytes > 0U) {
        *t = byte;
        t++;
        bytes--;
    }
    return to;
}

#if defined(__ARM_EABI__)
/* What clang calls in their place: Run-time ABI for the Arm Architecture, 4.3.4. */
void *__aeabi_memcpy(void *to, const void *from, size_t bytes) __attribute__((alias("memcpy")));
void *__aeabi_memcpy4(void *to, const void *from, size_t bytes) __attribute__((alias("memcpy")));
void *__aeabi_memcpy8(void *to, const void *from, size_t bytes) __attribute__((alias("memcpy")));
void __aeabi_memset(void *to, size_t bytes, int value);
void __aeabi_memset4(void *to, size_t bytes, int value) __attribute__((alias("__aeabi_memset")));
void __aeabi_memset8(void *to, size_t bytes, int value) __attribute__((alias("__aeabi_memset")));
void __aeabi_memclr(void *to, size_t bytes);
void __aeabi_memclr4(void *to, size_t bytes) __attribute__((alias("__aeabi_memclr")));
void __aeabi_memclr8(void *to, size_t bytes) __attribute__((alias("__aeabi_memclr")));

void __aeabi_memset(void *to, size_t bytes, int value) {
    (void)memset(to, value, bytes);
}

void __aeabi_memclr(void *to, size_t bytes) {
    (void)memset(to, 0, bytes);
}
#endif
