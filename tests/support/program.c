/* Starting programs and reading what they say: see program.h. */
#include "support/program.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

/* The folder of the tests lies beside the program `tutti` and the folder of the examples. */
int t_program(const char *name, char *path, size_t bytes)
{
    const ssize_t n = readlink("/proc/self/exe", path, bytes - 1);

    T_CHECK(n > 0, "where is this test?");
    path[n] = 0;
    for (int i = 0; i < 2; i++) {
        char *slash = strrchr(path, '/');

        T_CHECK(slash != NULL, "where is this test?");
        *slash = 0;
    }
    snprintf(path + strlen(path), bytes - strlen(path), "/%s", name);
    return access(path, X_OK) == 0 ? 0 : -1;
}

pid_t t_start(const char *const words[], int *out)
{
    int ends[2];
    pid_t pid;

    T_SYS(pipe2(ends, O_CLOEXEC));
    pid = fork();
    if (pid == 0) {
        setenv("ASAN_OPTIONS", "detect_leaks=0", 0); /* a misuse ends without clearing up */
        dup2(ends[1], STDOUT_FILENO);
        dup2(ends[1], STDERR_FILENO);
        execvp(words[0], (char *const *)(uintptr_t)words);
        _exit(126);
    }
    T_SYS(pid);
    close(ends[1]);
    *out = ends[0];
    return pid;
}

int t_finish(pid_t pid, int out, char *text, size_t bytes)
{
    char rest[4096];
    size_t n = 0;
    ssize_t got;
    int status;

    while (n + 1 < bytes && (got = read(out, text + n, bytes - 1 - n)) > 0)
        n += (size_t)got;
    text[n] = 0;
    while (read(out, rest, sizeof(rest)) > 0) /* so that it is not held up */
        ;
    close(out);
    T_SYS(waitpid(pid, &status, 0));
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

int t_tutti(const char *arguments, char *text, size_t bytes)
{
    char program[4096], line[8192];
    const char *const words[] = {"sh", "-c", line, NULL};
    pid_t pid;
    int out;

    if (t_program("tutti", program, sizeof(program)) != 0)
        t_skip("there is no program %s in this build", program);
    snprintf(line, sizeof(line), "exec '%s' %s", program, arguments);
    pid = t_start(words, &out);
    return t_finish(pid, out, text, bytes);
}

void t_tutti_says(const char *arguments, int want, const char *part, char *text, size_t bytes)
{
    const int status = t_tutti(arguments, text, bytes);

    T_CHECK(status == want, "tutti %s: exit status %d: %s", arguments, status, text);
    T_CONTAINS(text, part);
}
