/* The only place that reads the environment. */
#include "base/env.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"

enum type { TEXT, NUMBER, BYTES, TIME, CHOICE };

struct row {
    const char *name;
    enum type type;
    const char *default_value;
    const char *help;
};

static const struct row table[TT_ENV_COUNT] = {
#define TT_ENV(name, type, default_value, help) {#name, type, default_value, help},
#include "env_table.inc"
#undef TT_ENV
};

static const char *const type_names[] = {"text", "number", "bytes", "time", "choice"};

#define PREFIX            "TUTTI_"
#define NAME_MAX_BYTES    48 /* longest name that the search for the nearest one looks at */
#define UNKNOWN_MAX_BYTES 96
#define PROBLEM_MAX_BYTES 320

const char *tt_env_foreign(const char *name)
{
    return getenv(name);
}

int tt_env_is_set(enum tt_env variable)
{
    const char *value = tt_env_foreign(table[variable].name);

    return value && *value;
}

const char *tt_env_text(enum tt_env variable)
{
    return tt_env_is_set(variable) ? tt_env_foreign(table[variable].name)
                                   : table[variable].default_value;
}

/* Digits up to the suffix; 0 on success. No sign, no blank, no overflow. */
static int parse_digits(const char *text, uint64_t *value_out, const char **rest_out)
{
    uint64_t value = 0;
    const char *p = text;

    for (; *p >= '0' && *p <= '9'; p++) {
        if (__builtin_mul_overflow(value, (uint64_t)10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(*p - '0'), &value))
            return -1;
    }
    *value_out = value;
    *rest_out = p;
    return p == text ? -1 : 0;
}

static int scale(uint64_t value, uint64_t factor, uint64_t *value_out)
{
    uint64_t scaled;

    if (__builtin_mul_overflow(value, factor, &scaled))
        return -1;
    *value_out = scaled;
    return 0;
}

int tt_env_parse_number(const char *text, uint64_t *value_out)
{
    uint64_t value;
    const char *rest;

    if (parse_digits(text, &value, &rest) != 0 || *rest)
        return -1;
    return scale(value, 1, value_out);
}

int tt_env_parse_bytes(const char *text, uint64_t *value_out)
{
    uint64_t value;
    const char *rest;

    if (parse_digits(text, &value, &rest) != 0)
        return -1;
    if (*rest == 0)
        return scale(value, 1, value_out);
    if (rest[1])
        return -1;
    switch (*rest) {
    case 'K':
    case 'k': return scale(value, UINT64_C(1) << 10, value_out);
    case 'M':
    case 'm': return scale(value, UINT64_C(1) << 20, value_out);
    case 'G':
    case 'g': return scale(value, UINT64_C(1) << 30, value_out);
    default: return -1;
    }
}

int tt_env_parse_time(const char *text, uint64_t *ms_out)
{
    uint64_t value;
    const char *rest;

    if (parse_digits(text, &value, &rest) != 0)
        return -1;
    if (*rest == 0 || strcmp(rest, "ms") == 0)
        return scale(value, 1, ms_out);
    if (strcmp(rest, "s") == 0)
        return scale(value, 1000, ms_out);
    if (strcmp(rest, "m") == 0)
        return scale(value, 60000, ms_out);
    return -1;
}

tutti_result tt_env_number(enum tt_env variable, uint64_t *value_out)
{
    const struct row *row = &table[variable];
    const char *text = tt_env_text(variable);

    switch (row->type) {
    case NUMBER:
        if (tt_env_parse_number(text, value_out) == 0)
            return TUTTI_OK;
        return TT_FAIL(TUTTI_E_ARG, "%s=%s is not a number: use decimal digits", row->name, text);
    case BYTES:
        if (tt_env_parse_bytes(text, value_out) == 0)
            return TUTTI_OK;
        return TT_FAIL(TUTTI_E_ARG, "%s=%s is not a size: use 4096, 64K, 4M or 1G", row->name,
                       text);
    case TIME:
        if (tt_env_parse_time(text, value_out) != 0)
            return TT_FAIL(TUTTI_E_ARG, "%s=%s is not a time: use 250ms, 30s or 2m", row->name,
                           text);
        if (*value_out == 0)
            return TT_FAIL(TUTTI_E_ARG, "%s=%s is no time at all: leave it out for %s", row->name,
                           text, row->default_value);
        return TUTTI_OK;
    default: return TT_FAIL(TUTTI_E_INTERNAL, "%s is not a number by its table", row->name);
    }
}

tutti_result tt_env_choice(enum tt_env variable, int *index_out)
{
    const struct row *row = &table[variable];
    const char *text = tt_env_text(variable);
    const char *word = strchr(row->help, '[');

    for (int i = 0; word && *word != ']' && *word; i++) {
        size_t n = strcspn(++word, " ]");

        if (n > 0 && strlen(text) == n && memcmp(text, word, n) == 0) {
            *index_out = i;
            return TUTTI_OK;
        }
        word += n;
    }
    return TT_FAIL(TUTTI_E_ARG, "%s=%s is not one of the words of \"%s\"", row->name, text,
                   row->help);
}

tutti_result tt_env_foreign_number(const char *name, uint64_t *value_out)
{
    const char *text = tt_env_foreign(name);

    if (!text || !*text)
        return TT_FAIL(TUTTI_E_ARG, "%s is not set in the environment", name);
    if (tt_env_parse_number(text, value_out) != 0)
        return TT_FAIL(TUTTI_E_ARG, "%s=%s is not a number", name, text);
    return TUTTI_OK;
}

/* Levenshtein's distance; names longer than NAME_MAX_BYTES are nobody's misspelling. */
static size_t edit_distance(const char *a, const char *b)
{
    size_t n_a = strlen(a);
    size_t n_b = strlen(b);
    size_t row[NAME_MAX_BYTES + 1];

    if (n_a > NAME_MAX_BYTES || n_b > NAME_MAX_BYTES)
        return SIZE_MAX;
    for (size_t j = 0; j <= n_b; j++)
        row[j] = j;
    for (size_t i = 1; i <= n_a; i++) {
        size_t diagonal = row[0];

        row[0] = i;
        for (size_t j = 1; j <= n_b; j++) {
            size_t best = diagonal + (a[i - 1] != b[j - 1]);

            diagonal = row[j];
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[n_b];
}

const char *tt_env_nearest(const char *name)
{
    const char *nearest = NULL;
    size_t best = 5; /* more changes than four make another word */

    for (size_t i = 0; i < TT_ENV_COUNT; i++) {
        size_t distance = edit_distance(name, table[i].name);

        if (distance > 1 && strncmp(name, table[i].name, strlen(table[i].name)) == 0)
            distance = 2; /* TUTTI_ALGORITHM: more than the name, however much more */
        if (distance < best) {
            best = distance;
            nearest = table[i].name;
        }
    }
    return nearest;
}

static int is_known(const char *name)
{
    for (size_t i = 0; i < TT_ENV_COUNT; i++) {
        if (strcmp(name, table[i].name) == 0)
            return 1;
    }
    return 0;
}

/* The k'th variable of the environment that looks like one of ours and is none; 0 past the last. */
static int find_unknown(size_t k, char name[UNKNOWN_MAX_BYTES])
{
    for (char **p = environ; p && *p; p++) {
        size_t n = strcspn(*p, "=");

        if (strncmp(*p, PREFIX, strlen(PREFIX)) != 0)
            continue;
        if (n >= UNKNOWN_MAX_BYTES)
            n = UNKNOWN_MAX_BYTES - 1;
        memcpy(name, *p, n);
        name[n] = 0;
        if (!is_known(name) && k-- == 0)
            return 1;
    }
    return 0;
}

static void unknown_text(const char *name, char *text, size_t bytes)
{
    const char *nearest = tt_env_nearest(name);

    if (nearest)
        snprintf(text, bytes, "%s is not a variable of tutti; did you mean %s?", name, nearest);
    else
        snprintf(text, bytes, "%s is not a variable of tutti; see `tutti env`", name);
}

void tt_env_check_unknown(void)
{
    static atomic_flag done = ATOMIC_FLAG_INIT;
    char name[UNKNOWN_MAX_BYTES], text[PROBLEM_MAX_BYTES];

    if (atomic_flag_test_and_set(&done))
        return;
    for (size_t k = 0; find_unknown(k, name); k++) {
        unknown_text(name, text, sizeof(text));
        TT_LOG(TUTTI_LOG_WARN, -1, 0, "%s", text);
    }
}

/* Why the value cannot be read, if it cannot: "" or the text of the failure. */
static void problem_text(enum tt_env variable, char *text, size_t bytes)
{
    const enum type type = table[variable].type;
    uint64_t number;
    int index;
    tutti_result res = TUTTI_OK;

    if (tt_env_is_set(variable) && type == CHOICE)
        res = tt_env_choice(variable, &index);
    else if (tt_env_is_set(variable) && type != TEXT)
        res = tt_env_number(variable, &number);
    snprintf(text, bytes, "%s", res == TUTTI_OK ? "" : tt_error_text());
}

tutti_result tt_env_describe(size_t index, tutti_env_entry *entry)
{
    static _Thread_local char value[512], problem[PROBLEM_MAX_BYTES], unknown[UNKNOWN_MAX_BYTES];

    if (!entry || entry->size < sizeof(entry->size))
        return TT_FAIL(TUTTI_E_ARG, "the entry is NULL or its size is not set: use "
                                    "TUTTI_ENV_ENTRY_INIT");

    tutti_env_entry full = {.size = entry->size, .value = value, .source = "environment"};

    if (index < TT_ENV_COUNT) {
        const enum tt_env variable = (enum tt_env)index;
        const struct row *row = &table[index];
        const int is_set = tt_env_is_set(variable);

        snprintf(value, sizeof(value), "%s",
                 variable == TT_ENV_TUTTI_SECRET && is_set ? "(not shown)" : tt_env_text(variable));
        problem_text(variable, problem, sizeof(problem));
        full.name = row->name;
        full.type = type_names[row->type];
        full.default_value = row->default_value;
        full.source = is_set ? full.source : "default";
        full.help = row->help;
    } else if (find_unknown(index - TT_ENV_COUNT, unknown)) {
        snprintf(value, sizeof(value), "(not shown)"); /* it may be a secret, misspelled */
        unknown_text(unknown, problem, sizeof(problem));
        full.name = unknown;
        full.type = "unknown";
        full.default_value = "";
        full.help = "not a variable of tutti";
    } else {
        return TT_FAIL(TUTTI_E_ARG, "there is no variable %zu: tutti has %d", index,
                       (int)TT_ENV_COUNT);
    }
    full.problem = problem[0] ? problem : NULL;
    memcpy(entry, &full, entry->size < sizeof(full) ? entry->size : sizeof(full));
    return TUTTI_OK;
}
