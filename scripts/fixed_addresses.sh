#!/bin/sh
# Print the prefix that runs a command without address randomisation, or nothing where that is not
# allowed. ThreadSanitizer of gcc 12 and clang 14 cannot start under kernels that randomise a lot.
if setarch "$(uname -m)" -R true 2> /dev/null; then
    echo "setarch $(uname -m) -R"
fi
