#if defined(__AVX512VNNI__)
#include "kernels_body.h"
EDGESEQ_KERNELS(avx512)
#else
#include "kernels.h"
const edgeseq::Kernels* edgeseq::kernels_avx512() { return nullptr; }  // the compiler cannot
#endif
