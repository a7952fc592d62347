#if defined(__AVXVNNI__)
#include "kernels_body.h"
EDGESEQ_KERNELS(avxvnni)
#else
#include "kernels.h"
const edgeseq::Kernels* edgeseq::kernels_avxvnni() { return nullptr; }  // the compiler cannot
#endif
