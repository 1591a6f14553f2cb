/*
 * tutti_comm_config of any size, as a program built against another version would hand in: its bytes
 * are the input's, `size` included, in memory of exactly that size. What would need other processes
 * or other memory (id, callback, pointers) is put right. Never more than an error comes of it.
 */
#include <tutti/tutti.h>

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

enum { MAX_SIZE = 65536 };

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    setenv("TUTTI_LOG", "error", 1);
    return 0;
}

/* Set a pointer where the struct is long enough for it; half a pointer is none. */
static void set_pointer(unsigned char *config, size_t bytes, size_t at, const char *value)
{
    if (at + sizeof(value) <= bytes)
        memcpy(config + at, &value, sizeof(value));
    else if (at < bytes)
        memset(config + at, 0, bytes - at);
}

static void set_scratch(unsigned char *config, size_t bytes)
{
    const size_t at = offsetof(tutti_comm_config, scratch_bytes);
    uint64_t scratch;

    if (at + sizeof(scratch) > bytes) {
        if (at < bytes)
            memset(config + at, 0, bytes - at);
        return;
    }
    memcpy(&scratch, config + at, sizeof(scratch));
    if (scratch > 1u << 20 && scratch <= (uint64_t)1 << 32) /* valid, and slow */
        scratch = 65536 + scratch % 65536;
    memcpy(config + at, &scratch, sizeof(scratch));
}

static int any_after(const unsigned char *bytes, size_t from, size_t end)
{
    for (; from < end; from++)
        if (bytes[from])
            return 1;
    return 0;
}

static void use(tutti_comm *comm)
{
    int32_t x = 5;

    CHECK(tutti_all_reduce(comm, &x, &x, 1, TUTTI_DTYPE_I32, TUTTI_OP_SUM, NULL) == TUTTI_OK);
    CHECK(x == 5);
    tutti_comm_destroy(comm);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[] = {NULL, "", "decode", "a/b",
                                        "more than thirty-one bytes in a name"};
    static const char *const algorithms[] = {NULL, "", "auto", "two_shot", "direct", "no such"};
    uint32_t claimed = 0;
    size_t bytes;
    unsigned char *config;
    tutti_comm *comm = NULL;
    tutti_result result;

    if (size < 6)
        return 0;
    memcpy(&claimed, data + 2, sizeof(claimed));
    bytes = claimed < sizeof(claimed) || claimed > MAX_SIZE ? sizeof(claimed) : claimed;
    config = calloc(1, bytes);
    CHECK(config);
    memcpy(config, data + 2, size - 2 < bytes ? size - 2 : bytes);
    set_pointer(config, bytes, offsetof(tutti_comm_config, id), NULL);
    set_pointer(config, bytes, offsetof(tutti_comm_config, exchange), NULL);
    set_pointer(config, bytes, offsetof(tutti_comm_config, tune_file), NULL);
    set_pointer(config, bytes, offsetof(tutti_comm_config, name),
                names[data[0] % (sizeof(names) / sizeof(names[0]))]);
    set_pointer(config, bytes, offsetof(tutti_comm_config, algorithm),
                algorithms[data[1] % (sizeof(algorithms) / sizeof(algorithms[0]))]);
    set_scratch(config, bytes);
    result = tutti_comm_create((const tutti_comm_config *)(const void *)config, &comm);
    if (claimed < sizeof(claimed) || claimed > MAX_SIZE)
        CHECK(result == TUTTI_E_ARG);
    else if (any_after(config, sizeof(tutti_comm_config), bytes))
        CHECK(result == TUTTI_E_VERSION);
    CHECK((result == TUTTI_OK) == (comm != NULL));
    if (result == TUTTI_OK)
        use(comm);
    else
        CHECK(*tutti_last_error());
    free(config);
    return 0;
}
