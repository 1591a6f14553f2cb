/* Aligned tables for people. */
#ifndef TUTTI_TOOLS_TABLE_H
#define TUTTI_TOOLS_TABLE_H

#include <stdio.h>

struct table;

/* Headings of n columns; alignment has one letter each: l or r. */
struct table *table_new(size_t n_columns, const char *const headings[], const char *alignment);

/* The next cell; the first after a full row begins a new one. */
void table_cell(struct table *table, const char *format, ...) __attribute__((format(printf, 2, 3)));

void table_print(const struct table *table, FILE *out);
void table_free(struct table *table);

#endif
