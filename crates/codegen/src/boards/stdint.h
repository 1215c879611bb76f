/* Whole numbers as the compiler itself defines them: no C library has to be installed. */
#if __has_include(<stdint-gcc.h>)
#include <stdint-gcc.h>
#else
#include_next <stdint.h>
#endif
