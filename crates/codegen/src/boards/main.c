/* Runs the network on every sample of a file. */
#include "@prefix@.h"
#include "board.h"

#if defined(@PREFIX@_PROFILE)
#define MARKS 1024U

static uint32_t marks[MARKS];
static uint32_t marked;

void @PREFIX@_PROFILE(unsigned layer);
__attribute__((noinline)) void @PREFIX@_PROFILE(unsigned layer) {
    if (marked < MARKS) {
        marks[marked] = layer;
    }
    marked++;
}
#endif

/* 1 where a sample was read, 0 at the end of the file, less where it ends in between. */
static int32_t fill(int32_t file) {
    uint32_t n;
@inputs@
    return 1;
}

static int32_t answer(int32_t file) {
    int32_t ok = 1;
@outputs@
    return ok;
}

int main(void) {
    int32_t samples = board_open("samples.bin", 0);
    int32_t outputs = board_open("outputs.bin", 1);
    int32_t numbers = board_open("numbers.bin", 1);
    int32_t got = 1;
    uint32_t words[4] = {0U, @PREFIX@_ARENA_BYTES, 0U, 0U};
    if ((samples < 0) || (outputs < 0) || (numbers < 0)) {
        board_say("a file of the harness cannot be opened\n");
        return 3;
    }
    @prefix@_init();
    while (got > 0) {
        got = fill(samples);
        if (got > 0) {
            uint32_t stack;
#if defined(@PREFIX@_PROFILE)
            marked = 0U;
#endif
            board_paint();
            board_begin();
            @prefix@_invoke();
            board_end();
            stack = board_stack();
            if (stack > words[2]) {
                words[2] = stack;
            }
            words[0]++;
            if (answer(outputs) == 0) {
                board_say("the outputs cannot be written\n");
                return 3;
            }
        }
    }
    if (got < 0) {
        board_say("the last sample is not whole\n");
        return 3;
    }
#if defined(@PREFIX@_PROFILE)
    words[3] = (marked < MARKS) ? marked : MARKS;
#endif
    (void)board_write(numbers, words, (uint32_t)sizeof(words));
#if defined(@PREFIX@_PROFILE)
    (void)board_write(numbers, marks, 4U * words[3]);
#endif
    board_close(samples);
    board_close(outputs);
    board_close(numbers);
    return 0;
}
