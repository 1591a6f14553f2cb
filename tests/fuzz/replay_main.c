/*
 * Feeds a fuzz target what libFuzzer would: every file of the folders named, the empty input, and
 * with --mutate N also N damaged copies of each (the same ones on every run). So any compiler can
 * run the corpora, and sanitizers see them in `make asan`.
 *
 *     replay_wire [--mutate N] FILE-OR-FOLDER ...
 */
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_BYTES = 1 << 20 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv) __attribute__((weak));

static unsigned long n_files, n_runs, n_mutations;

/* A copy of exactly `size` bytes, so that AddressSanitizer sees a read of one byte too many. */
static void run(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size > 0 ? size : 1);

    if (copy == NULL) {
        fprintf(stderr, "replay: out of memory\n");
        exit(1);
    }
    if (size > 0)
        memcpy(copy, data, size);
    LLVMFuzzerTestOneInput(copy, size);
    free(copy);
    n_runs++;
}

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* One to four damages: a flipped bit, an extreme byte, a cut, a repeated piece. */
static size_t damage(uint8_t *data, size_t size, uint64_t *state)
{
    static const uint8_t extremes[] = {0x00, 0x01, 0x7f, 0x80, 0xff};
    const size_t n = 1 + next_random(state) % 4;

    for (size_t i = 0; i < n && size > 0; i++) {
        const size_t at = next_random(state) % size;

        switch (next_random(state) % 4) {
        case 0: data[at] ^= (uint8_t)(1u << next_random(state) % 8); break;
        case 1: data[at] = extremes[next_random(state) % sizeof(extremes)]; break;
        case 2: size = at; break;
        default: {
            size_t piece = size - at;

            if (piece > MAX_BYTES - size)
                piece = MAX_BYTES - size;
            memmove(data + at + piece, data + at, size - at);
            size += piece;
        }
        }
    }
    return size;
}

static int replay_file(const char *path)
{
    static uint8_t data[MAX_BYTES], damaged[MAX_BYTES];
    uint64_t state = 0x9e3779b97f4a7c15u;
    FILE *file = fopen(path, "rb");
    size_t size;

    if (file == NULL) {
        fprintf(stderr, "replay: %s: %s\n", path, strerror(errno));
        return 1;
    }
    size = fread(data, 1, sizeof(data), file);
    fclose(file);
    printf("%s\n", path); /* the last one printed is the one that crashed */
    fflush(stdout);
    n_files++;
    run(data, size);
    for (unsigned long m = 0; m < n_mutations; m++) {
        memcpy(damaged, data, size);
        run(damaged, damage(damaged, size, &state));
    }
    return 0;
}

static int replay(const char *path)
{
    struct dirent **entries;
    struct stat st;
    int n, failed = 0;

    if (stat(path, &st) != 0) {
        fprintf(stderr, "replay: %s: %s\n", path, strerror(errno));
        return 1;
    }
    if (!S_ISDIR(st.st_mode))
        return replay_file(path);
    n = scandir(path, &entries, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        char inner[4096];

        if (entries[i]->d_name[0] != '.') {
            snprintf(inner, sizeof(inner), "%s/%s", path, entries[i]->d_name);
            failed |= replay(inner);
        }
        free(entries[i]);
    }
    if (n >= 0)
        free(entries);
    return failed || n < 0;
}

int main(int argc, char **argv)
{
    int failed = 0, first = 1;

    if (argc > 2 && strcmp(argv[1], "--mutate") == 0) {
        n_mutations = strtoul(argv[2], NULL, 10);
        first = 3;
    }
    if (first >= argc) {
        fprintf(stderr, "usage: %s [--mutate N] FILE-OR-FOLDER ...\n", argv[0]);
        return 2;
    }
    if (LLVMFuzzerInitialize != NULL)
        LLVMFuzzerInitialize(&argc, &argv);
    run(NULL, 0);
    for (int i = first; i < argc; i++)
        failed |= replay(argv[i]);
    printf("replay: %lu files, %lu inputs\n", n_files, n_runs);
    if (n_files == 0) {
        fprintf(stderr, "replay: no corpus: a fuzz target needs a few files to start from\n");
        return 1;
    }
    return failed;
}
