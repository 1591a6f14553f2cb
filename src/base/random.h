/* Random bytes for secrets and nonces. */
#ifndef TT_BASE_RANDOM_H
#define TT_BASE_RANDOM_H

#include <stddef.h>
#include <tutti/tutti.h>

/* Fill `out` from the kernel's generator. There is no weaker source to fall back to: on failure the
 * buffer is zero and the caller must not go on. */
__attribute__((warn_unused_result)) tutti_result tt_random_bytes(void *out, size_t bytes);

#endif
