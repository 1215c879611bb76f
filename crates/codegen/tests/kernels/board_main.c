__asm__(".section .rodata.blob\n.balign 16\nblob_bytes:\n.incbin \"" BLOB "\"\n.text\n");
extern const uint8_t blob_bytes[];

int main(void)
{
    return (run_cases(blob_bytes) > 0) ? 1 : 0;
}
