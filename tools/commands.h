/* The subcommands: what the help says of each, and its body. */
#ifndef TUTTI_TOOLS_COMMANDS_H
#define TUTTI_TOOLS_COMMANDS_H

#include "cli.h"

/* X(name) in the order of the overview */
#define COMMANDS(X) X(hello) X(run) X(bench) X(info) X(tune) X(env) X(version)

#define COMMAND_DECLARE_(name)                                                                     \
    extern const struct cli_command command_##name;                                                \
    int command_##name##_run(int argc, char **argv);
COMMANDS(COMMAND_DECLARE_)
#undef COMMAND_DECLARE_

#endif
