#include "loops_body.h"
EDGESEQ_LOOPS(plain)
