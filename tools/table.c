#include "table.h"
#include "cli.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

struct table {
    size_t n_columns;
    const char *const *headings;
    const char *alignment;
    char **cells;
    size_t n_cells;
};

struct table *table_new(size_t n_columns, const char *const headings[], const char *alignment)
{
    struct table *table = cli_alloc(sizeof(*table));

    table->n_columns = n_columns;
    table->headings = headings;
    table->alignment = alignment;
    return table;
}

void table_cell(struct table *table, const char *format, ...)
{
    char text[512];
    va_list args;
    char **cells = realloc(table->cells, (table->n_cells + 1) * sizeof(*cells));

    if (!cells)
        return;
    table->cells = cells;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    cells[table->n_cells] = strdup(text);
    if (cells[table->n_cells])
        table->n_cells++;
}

static size_t column_width(const struct table *table, size_t column)
{
    size_t width = strlen(table->headings[column]);

    for (size_t i = column; i < table->n_cells; i += table->n_columns)
        if (strlen(table->cells[i]) > width)
            width = strlen(table->cells[i]);
    return width;
}

static void print_cell(const struct table *table, size_t column, const char *text, FILE *out)
{
    const int width = (int)column_width(table, column);
    const int last = column + 1 == table->n_columns;

    if (table->alignment[column] == 'r')
        fprintf(out, "%*s", width, text);
    else if (last)
        fputs(text, out);
    else
        fprintf(out, "%-*s", width, text);
    fputs(last ? "\n" : "  ", out);
}

void table_print(const struct table *table, FILE *out)
{
    for (size_t c = 0; c < table->n_columns; c++)
        print_cell(table, c, table->headings[c], out);
    for (size_t i = 0; table->n_columns && i < table->n_cells; i++)
        print_cell(table, i % table->n_columns, table->cells[i], out);
}

void table_free(struct table *table)
{
    if (!table)
        return;
    for (size_t i = 0; i < table->n_cells; i++)
        free(table->cells[i]);
    free(table->cells);
    free(table);
}
