/* TUTTI_* variables. Read when a communicator is created, never on the way of a call. */
#ifndef TT_BASE_ENV_H
#define TT_BASE_ENV_H

#include <tutti/tutti.h>

enum tt_env {
#define TT_ENV(name, type, default_value, help) TT_ENV_##name,
#include "env_table.inc"
#undef TT_ENV
    TT_ENV_COUNT
};

/* The value, or the default; "" when neither is set. Lives until the environment changes. */
const char *tt_env_text(enum tt_env variable);

/* 1 if the user set it to something other than "". */
int tt_env_is_set(enum tt_env variable);

/* Number, bytes or milliseconds. A malformed value is TUTTI_E_ARG naming variable and value. */
tutti_result tt_env_number(enum tt_env variable, uint64_t *value_out);

/* Index of the value among the words in brackets of the help. Malformed: TUTTI_E_ARG. */
tutti_result tt_env_choice(enum tt_env variable, int *index_out);

/* A variable that belongs to somebody else (RANK, SLURM_PROCID ...), or NULL. */
const char *tt_env_foreign(const char *name);

/* tt_env_parse_number() of such a variable; E_ARG names a malformed value or, if unset, the name. */
tutti_result tt_env_foreign_number(const char *name, uint64_t *value_out);

/* Warn, once per process, about TUTTI_* variables that do not exist, with the nearest that does. */
void tt_env_check_unknown(void);

/* The index'th row of the table with its value, its source and what is wrong with it, then those of the
 * environment that are in no table; E_ARG past the last. Secrets are not shown. Fills min(entry->size, sizeof)
 * bytes; the value lives until this thread's next call. */
tutti_result tt_env_describe(size_t index, tutti_env_entry *entry);

/* The variable whose name is nearest to `name`, or NULL if none is near. Pure. */
const char *tt_env_nearest(const char *name);

/* Parsers behind the above, pure, for their tests and fuzzers. 0 on success. */
int tt_env_parse_number(const char *text, uint64_t *value_out); /* decimal digits only */
int tt_env_parse_bytes(const char *text, uint64_t *value_out);  /* 4096, 64K, 4M, 1G */
int tt_env_parse_time(const char *text, uint64_t *ms_out);      /* 250, 250ms, 30s, 2m */

#endif
