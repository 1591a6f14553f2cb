/* Slurm's compressed host lists, as far as their first host. */
#include "boot/boot_launcher.h"

#include <string.h>

static int is_host_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '.' || c == '_';
}

static int is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Text before the first comma: letters as they are, of every [...] the first number. */
int tt_boot_first_host(const char *list, char *out, size_t bytes)
{
    size_t n = 0;

    if (bytes == 0)
        return -1;
    for (const char *p = list; *p && *p != ','; p++) {
        if (*p != '[') {
            if (!is_host_char(*p) || n + 1 >= bytes)
                return -1;
            out[n++] = *p;
            continue;
        }
        if (!is_digit(*++p))
            return -1;
        for (; is_digit(*p); p++) {
            if (n + 1 >= bytes)
                return -1;
            out[n++] = *p;
        }
        if (*p != '-' && *p != ',' && *p != ']')
            return -1;
        p = strchr(p, ']');
        if (!p)
            return -1;
    }
    out[n] = 0;
    return n > 0 ? 0 : -1;
}
