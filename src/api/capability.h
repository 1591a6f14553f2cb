/* What this build can do on this machine: the facts behind `tutti info`. */
#ifndef TT_API_CAPABILITY_H
#define TT_API_CAPABILITY_H

#include <tutti/tutti.h>

tutti_result tt_capability_describe(size_t index, tutti_capability *capability);

#endif
