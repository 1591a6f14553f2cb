/* A libucp that is too old, or (T_UCP_MINOR=13) new enough by what it says but without what is needed. */
#include <stdlib.h>

__attribute__((visibility("default"))) void
ucp_get_version(unsigned *major_out, unsigned *minor_out, unsigned *release_out);

void ucp_get_version(unsigned *major_out, unsigned *minor_out, unsigned *release_out)
{
    const char *minor = getenv("T_UCP_MINOR");

    *major_out = 1;
    *minor_out = minor ? (unsigned)strtoul(minor, NULL, 10) : 10;
    *release_out = 0;
}
