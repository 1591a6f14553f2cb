/* getrandom(2), all of it or an error. */
#include "base/random.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "base/error.h"

tutti_result tt_random_bytes(void *out, size_t bytes)
{
    unsigned char *p = out;
    size_t done = 0;

    while (done < bytes) {
        ssize_t n = getrandom(p + done, bytes - done, 0);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            memset(out, 0, bytes);
            return TT_FAIL_SYS("cannot get %zu random bytes from the kernel", bytes);
        }
        done += (size_t)n;
    }
    return TUTTI_OK;
}
