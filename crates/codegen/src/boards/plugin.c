/* A plugin of QEMU that counts the instructions of each inference, and of each layer where there are marks.
   It declares what it uses of the interface of plugins: version 1 of it (QEMU before 9) where API is 1, else 2 and on.

   Words: out=FILE, and begin, end and mark as START+BYTES in hexadecimal, the places of functions. Instructions of
   these three are not counted. blocks=1 counts how often each block of instructions ran.

   Lines of FILE: "mark N", instructions since the mark before; "invoke N", instructions from begin to end;
   "block PC INSTRUCTIONS TIMES"; "total N". */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORTED __attribute__((visibility("default")))

struct block;
struct instruction;

extern void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, void (*f)(uint64_t, struct block *));
extern void qemu_plugin_register_vcpu_insn_exec_cb(struct instruction *, void (*f)(unsigned, void *), int flags,
                                                   void *data);
extern void qemu_plugin_register_atexit_cb(uint64_t id, void (*f)(uint64_t, void *), void *data);
extern size_t qemu_plugin_tb_n_insns(const struct block *);
extern struct instruction *qemu_plugin_tb_get_insn(const struct block *, size_t at);
extern uint64_t qemu_plugin_insn_vaddr(const struct instruction *);

EXPORTED int qemu_plugin_version = API;

#if API == 1
typedef uint64_t *counter;

extern void qemu_plugin_register_vcpu_tb_exec_inline(struct block *, int op, void *at, uint64_t add);

static counter new_counter(void) {
    return calloc(1, sizeof(uint64_t));
}

static void count(struct block *block, counter c, uint64_t add) {
    qemu_plugin_register_vcpu_tb_exec_inline(block, 0, c, add);
}

static uint64_t value(counter c) {
    return *c;
}
#else
struct scoreboard;
typedef struct {
    struct scoreboard *score;
    size_t offset;
} counter;

extern struct scoreboard *qemu_plugin_scoreboard_new(size_t bytes);
extern void qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(struct block *, int op, counter, uint64_t add);
extern uint64_t qemu_plugin_u64_sum(counter);

static counter new_counter(void) {
    counter c = {qemu_plugin_scoreboard_new(sizeof(uint64_t)), 0};
    return c;
}

static void count(struct block *block, counter c, uint64_t add) {
    qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(block, 0, c, add);
}

static uint64_t value(counter c) {
    return qemu_plugin_u64_sum(c);
}
#endif

struct place {
    uint64_t start;
    uint64_t bytes;
};

struct translated {
    uint64_t pc;
    uint64_t instructions;
    counter times;
    struct translated *next;
};

static struct place begin, end, mark;
static int counts_blocks;
static FILE *out;
static counter executed;
static uint64_t begun, marked;
static struct translated *all;

static int within(const struct place *p, uint64_t at) {
    return at >= p->start && at < p->start + p->bytes;
}

static void at_begin(unsigned cpu, void *data) {
    (void)cpu;
    (void)data;
    begun = value(executed);
    marked = begun;
}

static void at_end(unsigned cpu, void *data) {
    (void)cpu;
    (void)data;
    fprintf(out, "invoke %llu\n", (unsigned long long)(value(executed) - begun));
}

static void at_mark(unsigned cpu, void *data) {
    uint64_t now = value(executed);
    (void)cpu;
    (void)data;
    fprintf(out, "mark %llu\n", (unsigned long long)(now - marked));
    marked = now;
}

static void translate(uint64_t id, struct block *block) {
    size_t n = qemu_plugin_tb_n_insns(block);
    struct instruction *first = qemu_plugin_tb_get_insn(block, 0);
    uint64_t pc = qemu_plugin_insn_vaddr(first);
    (void)id;
    if (pc == begin.start) {
        qemu_plugin_register_vcpu_insn_exec_cb(first, at_begin, 0, NULL);
    } else if (pc == end.start) {
        qemu_plugin_register_vcpu_insn_exec_cb(first, at_end, 0, NULL);
    } else if (pc == mark.start) {
        qemu_plugin_register_vcpu_insn_exec_cb(first, at_mark, 0, NULL);
    }
    if (within(&begin, pc) || within(&end, pc) || within(&mark, pc)) {
        return;
    }
    count(block, executed, n);
    if (counts_blocks) {
        struct translated *t = calloc(1, sizeof *t);
        t->pc = pc;
        t->instructions = n;
        t->times = new_counter();
        t->next = all;
        all = t;
        count(block, t->times, 1);
    }
}

static void finish(uint64_t id, void *data) {
    const struct translated *t;
    (void)id;
    (void)data;
    for (t = all; t != NULL; t = t->next) {
        uint64_t times = value(t->times);
        if (times > 0) {
            fprintf(out, "block %llx %llu %llu\n", (unsigned long long)t->pc, (unsigned long long)t->instructions,
                    (unsigned long long)times);
        }
    }
    fprintf(out, "total %llu\n", (unsigned long long)value(executed));
    fclose(out);
}

static struct place place_of(const char *text) {
    struct place p;
    char *rest;
    p.start = strtoull(text, &rest, 16);
    p.bytes = *rest == '+' ? strtoull(rest + 1, NULL, 16) : 0;
    return p;
}

EXPORTED int qemu_plugin_install(uint64_t id, const void *info, int n, char **words) {
    int i;
    (void)info;
    for (i = 0; i < n; i++) {
        if (strncmp(words[i], "out=", 4) == 0) {
            out = fopen(words[i] + 4, "w");
        } else if (strncmp(words[i], "begin=", 6) == 0) {
            begin = place_of(words[i] + 6);
        } else if (strncmp(words[i], "end=", 4) == 0) {
            end = place_of(words[i] + 4);
        } else if (strncmp(words[i], "mark=", 5) == 0) {
            mark = place_of(words[i] + 5);
        } else if (strcmp(words[i], "blocks=1") == 0) {
            counts_blocks = 1;
        }
    }
    if (out == NULL) {
        fprintf(stderr, "the file of counts cannot be written\n");
        return -1;
    }
    executed = new_counter();
    qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
    qemu_plugin_register_atexit_cb(id, finish, NULL);
    return 0;
}
