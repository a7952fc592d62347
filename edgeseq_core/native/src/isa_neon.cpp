#if defined(__ARM_NEON) && defined(__ARM_FEATURE_DOTPROD)
#include "kernels_body.h"
EDGESEQ_KERNELS(neon)
#else
#include "kernels.h"
const edgeseq::Kernels* edgeseq::kernels_neon() { return nullptr; }  // the compiler cannot
#endif
