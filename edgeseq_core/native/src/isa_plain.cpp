#define EDGESEQ_PLAIN
#include "kernels_body.h"
EDGESEQ_KERNELS(plain)
