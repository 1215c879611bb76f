/* A plugin of QEMU that counts the instructions that were executed, and says so at the end.
   It declares what it uses of the interface of plugins, version 1 (QEMU 4.2 to 8.1). */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct block;

extern void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, void (*f)(uint64_t, struct block *));
extern void qemu_plugin_register_vcpu_tb_exec_inline(struct block *, int op, void *at, uint64_t add);
extern void qemu_plugin_register_atexit_cb(uint64_t id, void (*f)(uint64_t, void *), void *data);
extern size_t qemu_plugin_tb_n_insns(const struct block *);

__attribute__((visibility("default"))) int qemu_plugin_version = 1;

static uint64_t executed;

static void translated(uint64_t id, struct block *block) {
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_inline(block, 0, &executed, qemu_plugin_tb_n_insns(block));
}

static void finished(uint64_t id, void *data) {
    (void)id;
    (void)data;
    fprintf(stderr, "instructions %llu\n", (unsigned long long)executed);
}

__attribute__((visibility("default"))) int qemu_plugin_install(uint64_t id, const void *info, int n,
                                                               char **words) {
    (void)info;
    (void)n;
    (void)words;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, finished, NULL);
    return 0;
}
