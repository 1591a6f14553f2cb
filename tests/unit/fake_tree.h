/* A folder of files that a test makes up, as /sys or /proc, and removes in the end. */
#ifndef TUTTI_TESTS_FAKE_TREE_H
#define TUTTI_TESTS_FAKE_TREE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* order matters: cmocka wants the above */
#include <cmocka.h>

#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char tree[] = "/tmp/tutti-tree-XXXXXX"; /* for mkdtemp() */

/* The file or folder, with all folders above it. */
static void tree_add(const char *path, const char *content)
{
    char full[400];
    FILE *file;

    snprintf(full, sizeof(full), "%s/%s", tree, path);
    for (char *p = full + 1; (p = strchr(p, '/')) != NULL; *p++ = '/') {
        *p = 0;
        assert_true(mkdir(full, 0700) == 0 || errno == EEXIST);
    }
    if (!content)
        return;
    file = fopen(full, "w");
    assert_non_null(file);
    fputs(content, file);
    fclose(file);
}

static int tree_remove_one(const char *path, const struct stat *s, int type, struct FTW *ftw)
{
    (void)s;
    (void)type;
    (void)ftw;
    return remove(path);
}

static int tree_remove(void)
{
    return nftw(tree, tree_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

#endif
