int main(int count, char **words)
{
    FILE *file = (count > 1) ? fopen(words[1], "rb") : NULL;
    uint8_t *bytes;
    long size;
    int wrong;
    if (file == NULL || fseek(file, 0, SEEK_END) != 0) {
        return 98;
    }
    size = ftell(file);
    rewind(file);
    bytes = (uint8_t *)malloc((size_t)size);
    if (bytes == NULL || fread(bytes, 1, (size_t)size, file) != (size_t)size) {
        return 98;
    }
    fclose(file);
    wrong = run_cases(bytes);
    free(bytes);
    return (wrong > 0) ? 1 : 0;
}
