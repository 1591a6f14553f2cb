/* What is to be written at the end is tried before the measurement, which may take minutes. */
#include "bench_plot.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Leaves nothing behind, and what there is as it is: it may be a pipe, too. */
static int try_file(const char *option, const char *path)
{
    struct stat state;
    int fd;

    if (stat(path, &state) == 0) {
        errno = EISDIR;
        if (!S_ISDIR(state.st_mode) && access(path, W_OK) == 0)
            return 0;
    } else {
        fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd >= 0) {
            close(fd);
            unlink(path);
            return 0;
        }
    }
    return cli_error("%s %s: %s", option, path, strerror(errno));
}

int bench_check_files(const struct bench_options *options)
{
    const char *dot = options->plot ? strrchr(options->plot, '.') : NULL;
    int status = 0;

    if (options->json && strcmp(options->json, "-") != 0)
        status = try_file("--json", options->json);
    if (!options->plot || status)
        return status;
    if (!dot || (strcmp(dot, ".svg") != 0 && strcmp(dot, ".png") != 0))
        return cli_error("--plot %s: name a file that ends in .svg or .png", options->plot);
    status = try_file("--plot", options->plot);
    return status || strcmp(dot, ".svg") == 0 ? status : plot_check_png(options->plot);
}
