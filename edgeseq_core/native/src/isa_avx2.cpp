#if defined(__AVX2__)
#include "kernels_body.h"
EDGESEQ_KERNELS(avx2)
#else
#include "kernels.h"
const edgeseq::Kernels* edgeseq::kernels_avx2() { return nullptr; }  // the compiler cannot
#endif
