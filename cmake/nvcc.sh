#!/bin/sh
# nvcc.sh LOG COMMAND ...: run the compiler; what ptxas says of registers and spills goes to LOG, for
# scripts/check_kernels.py, and is shown only if the compiler fails.
log=$1
shift
"$@" > "$log" 2>&1 && exit
code=$?
cat "$log"
exit $code
